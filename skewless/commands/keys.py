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

_UNCHANGED = "nothing was changed"


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
        expires_us = None if expires is None else time_option("--expires", expires)
        new = open_project(output, repo).keys.add(
            name, scope=scope or ("predict",), rate=rate, expires_us=expires_us, dry_run=dry_run
        )
        if dry_run:
            output.answer({"dry_run": True, **new.key.as_dict()}, _shown("would be made", [new.key]), _UNCHANGED)
            return
        output.answer(new.as_dict(), _shown("made", [new.key]), "the key, which is not shown again:")
        if not as_json:
            # A part would be broken into lines on a narrow terminal, and could not be copied.
            output.stdout.write(f"{new.secret}\n")


def list_keys(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """List the API keys: whose they are, what they may do, until when. The keys themselves are not known."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        keys, now = project.keys.list(), project.clock.now_us()
        body = {"keys": [{**key.as_dict(), "valid": key.is_valid_at(now)} for key in keys]}
        output.answer(body, _shown("API keys", keys))


def revoke_key(name: Name, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Forget an API key. Servers refuse it within a second."""
    with answering(as_json=as_json) as output:
        open_project(output, repo).keys.revoke(name, dry_run=dry_run)
        said = f"would be revoked; {_UNCHANGED}" if dry_run else "is revoked"
        output.answer({"name": name, "dry_run": True} if dry_run else {"name": name, "revoked": True}, f"{name} {said}")


def _shown(title: str, keys: Sequence[ApiKey]) -> RenderableType:
    items = [key.as_dict() for key in keys]
    rows = [[" ".join(value) if isinstance(value, list) else value for value in item.values()] for item in items]
    return table(title, ("name", "scopes", "rate", "created", "expires"), rows)
