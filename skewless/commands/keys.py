"""``skewless keys``: who may ask the prediction server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project, time_option
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.infra.access.api_keys import ApiKey
    from skewless.infra.access.key_file import KeyFile
    from skewless.project import Project

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who asks: lower-case letters, digits, hyphens.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="SCOPE", help="predict (default), as_of, feedback or admin; once for each."),
]
Rate = Annotated[
    float | None, typer.Option("--rate", metavar="N", help="Most requests a second; default: as many as it likes.")
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="From when on it is refused (ISO 8601); default: never.")
]


def add_key(
    name: Name,
    *,
    scope: Scopes = None,
    rate: Rate = None,
    expires: Expires = None,
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make an API key. It is shown this once: only its SHA-256 is stored. Servers know it within a second."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        from skewless.infra.access.api_keys import ApiKey, digest_of, new_secret, with_key

        secret = new_secret(name)
        key = ApiKey(
            name=name,
            digest=digest_of(secret.encode()),
            scopes=frozenset(scope or ["predict"]),
            rate=rate,
            created_us=project.clock.now_us(),
            expires_us=None if expires is None else time_option("--expires", expires),
        )
        file = _file(project)
        if dry_run:
            with_key(file.read(), key)
            output.answer({"dry_run": True, **key.as_dict()}, _shown("would be made", [key]), "nothing was changed")
            return
        file.add(key)
        output.answer({"key": secret, **key.as_dict()}, _shown("made", [key]), "the key, which is not shown again:")
        if not as_json:
            # A part would be broken into lines on a narrow terminal, and could not be copied.
            output.stdout.write(f"{secret}\n")


def list_keys(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """List the API keys: whose they are, what they may do, until when. The keys themselves are not known."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        keys, now = _file(project).read(), project.clock.now_us()
        body = {"keys": [{**key.as_dict(), "valid": key.valid_at(now)} for key in keys]}
        output.answer(body, _shown("API keys", keys))


def revoke_key(name: Name, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Forget an API key. Servers refuse it within a second."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        from skewless.infra.access.api_keys import without_key

        file = _file(project)
        if dry_run:
            without_key(file.read(), name)
            output.answer({"dry_run": True, "name": name}, f"{name} would be revoked; nothing was changed")
            return
        file.revoke(name)
        output.answer({"name": name, "revoked": True}, f"{name} is revoked")


def _file(project: Project) -> KeyFile:
    from skewless.infra.access.key_file import KeyFile

    return KeyFile(project.state)


def _shown(title: str, keys: Sequence[ApiKey]) -> RenderableType:
    items = [key.as_dict() for key in keys]
    rows = [[" ".join(value) if isinstance(value, list) else value for value in item.values()] for item in items]
    return table(title, ("name", "scopes", "rate", "created", "expires"), rows)
