"""Commands on API keys: ``keys add``, ``keys list`` and ``keys revoke``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from skewless.commands.command import UNCHANGED, DryRun, argument, command, option, time_option
from skewless.commands.output import Session, records_table
from skewless.commands.tables import TextTable

if TYPE_CHECKING:
    from skewless.infra.platform.access.api_keys import ApiKey

CallerName = Annotated[str, argument("NAME", "Name of the caller: lower-case letters, digits, hyphens.")]
Scopes = Annotated[
    list[str] | None,
    option("--scope SCOPE", "predict (default), as_of, feedback, view, operate or admin; once for each."),
]
Rate = Annotated[float | None, option("--rate N", "Most requests per second; default: no limit.")]
KeyModels = Annotated[list[str] | None, option("--model MODEL", "Model that it permits; once for each; default: all.")]
Certificate = Annotated[
    str | None,
    option("--certificate NAME", "Instead of a secret: dns:, uri:, email: or subject: name of a client certificate."),
]
Expires = Annotated[str | None, option("--expires TIME", "Time from which it is rejected (ISO 8601); default: never.")]


@command(
    "Create an API key and show it once.",
    "web --repo my-project --scope predict",
    "shop --scope predict --scope feedback --model fraud --rate 100 --expires 2027-01-01 --json",
    "batch --certificate uri:spiffe://shop/batch",
    name="keys add",
)
def add_key(
    session: Session,
    name: CallerName,
    *,
    scope: Scopes = None,
    model: KeyModels = None,
    certificate: Certificate = None,
    rate: Rate = None,
    expires: Expires = None,
    dry_run: DryRun = False,
) -> None:
    """Create an API key and show it once. Only its SHA-256 is stored. Servers accept it within a second.

    With --certificate, the caller shows a client certificate instead (mutual TLS, setting tls_ca).
    """
    expires_us = None if expires is None else time_option("--expires", expires)
    new = session.project.keys.add(
        name,
        scope=scope or ("predict",),
        model=model or (),
        certificate=certificate,
        rate=rate,
        expires_us=expires_us,
        dry_run=dry_run,
    )
    if dry_run:
        session.show({"dry_run": True, **new.key.as_dict()}, _keys_table("would be created", [new.key]), UNCHANGED)
        return
    secret = [] if new.secret is None else ["the key, which cannot be shown again:", new.secret]
    session.show(new.as_dict(), _keys_table("created", [new.key]), *secret)


@command("List the API keys.", "--repo my-project", name="keys list")
def list_keys(session: Session) -> None:
    """List the API keys with scopes, rate and expiry. The secrets are not stored."""
    keys, now = session.project.keys.list(), session.project.clock.now_us()
    body = {"keys": [{**key.as_dict(), "valid": key.is_valid_at(now)} for key in keys]}
    session.show(body, _keys_table("API keys", keys) if keys else "the project has no API key")


@command("Revoke an API key.", "web --repo my-project", name="keys revoke")
def revoke_key(session: Session, name: CallerName, *, dry_run: DryRun = False) -> None:
    """Revoke an API key. Servers reject it within a second."""
    session.project.keys.revoke(name, dry_run=dry_run)
    if dry_run:
        session.show({"name": name, "dry_run": True}, f"{name} would be revoked; {UNCHANGED}")
    else:
        session.show({"name": name, "revoked": True}, f"{name} is revoked")


def _keys_table(title: str, keys: Sequence[ApiKey]) -> TextTable:
    names = ["name", "scopes", "rate", "created", "expires"]
    # Most projects limit no key, and have no client certificates.
    names[2:2] = [name for name in ("models", "certificate") if any(getattr(key, name) is not None for key in keys)]
    return records_table(title, [key.as_dict() for key in keys], names)
