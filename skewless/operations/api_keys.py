"""The API keys of a project: its callers, with their scopes and rates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, add_key, generate_secret, hash_secret, remove_key
from skewless.operations.audited import audited
from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A new key.

    Args:
        secret: for its user; it is not stored and cannot be shown again. None: the user has a client certificate.
    """

    key: ApiKey
    secret: str | None = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the secret as ``key``."""
        return {**({} if self.secret is None else {"key": self.secret}), **self.key.as_dict()}


@dataclass(frozen=True)
class ApiKeys:
    """The API keys of a project: ``skewless keys``. Servers follow within a second."""

    project: Workspace

    @audited("keys.add", tell=lambda created: created.key.as_dict())
    def add(
        self,
        name: str,
        *,
        scope: Collection[str] = ("predict",),
        model: Collection[str] = (),
        certificate: str | None = None,
        rate: float | None = None,
        expires_us: int | None = None,
        dry_run: bool = False,
    ) -> NewKey:
        """Create a key.

        Args:
            name: of its user: lower-case letters, digits, hyphens.
            scope: ``predict``, ``as_of``, ``feedback`` or ``admin``.
            model: the only models that it permits; empty: all.
            certificate: name in a client certificate that counts as the key: ``dns:NAME``, ``uri:URI``,
                ``email:ADDRESS`` or ``subject:NAME``; None: a secret is created.
            rate: most requests per second; None: no limit.
            expires_us: time from which it is rejected, UTC microseconds; None: never.

        Raises:
            DefinitionError: an argument is invalid.
            ConflictError: the name, or the certificate, already has a key.
        """
        secret = generate_secret(name) if certificate is None else None
        key = ApiKey(
            name=name,
            digest=None if secret is None else hash_secret(secret.encode()),
            certificate=None if certificate is None else _normalize_host(certificate),
            scopes=frozenset(scope),
            models=frozenset(model) or None,
            rate=rate,
            created_us=self.project.clock.now_us(),
            expires_us=expires_us,
        )
        add_key(self._store.read(), key)
        if not dry_run:
            self._store.add(key)
        return NewKey(key=key, secret=secret)

    def list(self) -> Sequence[ApiKey]:
        """Return all keys in the order of their creation, expired keys too; the secrets are not stored."""
        return self._store.read()

    @audited("keys.revoke")
    def revoke(self, name: str, *, dry_run: bool = False) -> None:
        """Revoke a key.

        Raises:
            RequestError: the name has no key.
        """
        remove_key(self._store.read(), name)
        if not dry_run:
            self._store.revoke(name)

    @property
    def _store(self) -> KeyStore:
        return KeyStore(self.project.state)


def _normalize_host(certificate: str) -> str:
    """Return the name of a certificate; the case of a host's name does not matter."""
    return certificate.lower() if certificate.startswith("dns:") else certificate
