"""``skewless keys``: the API keys of the prediction server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.command import UNCHANGED, DryRun, command, time_option
from skewless.commands.output import Session, records_table
from skewless.commands.tables import TextTable

if TYPE_CHECKING:
    from skewless.infra.access.api_keys import ApiKey

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the caller: lower-case letters, digits, hyphens.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="SCOPE", help="predict (default), as_of, feedback or admin; once for each."),
]
Rate = Annotated[float | None, typer.Option("--rate", metavar="N", help="Most requests per second; default: no limit.")]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="Time from which it is rejected (ISO 8601); default: never."),
]


@command(
    "Create an API key and show it once.",
    "web --repo my-project --scope predict",
    "shop --scope predict --scope feedback --rate 100 --expires 2027-01-01 --json",
    name="keys add",
)
def add_key(
    session: Session,
    name: Name,
    *,
    scope: Scopes = None,
    rate: Rate = None,
    expires: Expires = None,
    dry_run: DryRun = False,
) -> None:
    """Create an API key and show it once. Only its SHA-256 is stored. Servers accept it within a second."""
    expires_us = None if expires is None else time_option("--expires", expires)
    new = session.project.keys.add(name, scope=scope or ("predict",), rate=rate, expires_us=expires_us, dry_run=dry_run)
    if dry_run:
        session.show({"dry_run": True, **new.key.as_dict()}, _table("would be created", [new.key]), UNCHANGED)
        return
    session.show(new.as_dict(), _table("created", [new.key]), "the key, which cannot be shown again:", new.secret)


@command("List the API keys.", "--repo my-project", name="keys list")
def list_keys(session: Session) -> None:
    """List the API keys with scopes, rate and expiry. The secrets are not stored."""
    keys, now = session.project.keys.list(), session.project.clock.now_us()
    body = {"keys": [{**key.as_dict(), "valid": key.is_valid_at(now)} for key in keys]}
    session.show(body, _table("API keys", keys) if keys else "the project has no API key")


@command("Revoke an API key.", "web --repo my-project", name="keys revoke")
def revoke_key(session: Session, name: Name, *, dry_run: DryRun = False) -> None:
    """Revoke an API key. Servers reject it within a second."""
    session.project.keys.revoke(name, dry_run=dry_run)
    if dry_run:
        session.show({"name": name, "dry_run": True}, f"{name} would be revoked; {UNCHANGED}")
    else:
        session.show({"name": name, "revoked": True}, f"{name} is revoked")


def _table(title: str, keys: Sequence[ApiKey]) -> TextTable:
    names = ("name", "scopes", "rate", "created", "expires")
    return records_table(title, names, [key.as_dict() for key in keys])
