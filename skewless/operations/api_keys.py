"""The API keys of a project: who may ask its prediction servers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skewless.infra.access.api_keys import ApiKey
    from skewless.infra.access.key_file import KeyFile
    from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was made.

    Args:
        secret: to be handed to its user; it is not stored and cannot be shown again.
    """

    key: ApiKey
    secret: str = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the secret as ``key``."""
        return {"key": self.secret, **self.key.as_dict()}


@dataclass(frozen=True)
class ApiKeys:
    """The API keys of a project: ``skewless keys``. Servers follow within a second."""

    project: Workspace

    def add(
        self,
        name: str,
        *,
        scope: Collection[str] = ("predict",),
        rate: float | None = None,
        expires_us: int | None = None,
        dry_run: bool = False,
    ) -> NewKey:
        """Make a key.

        Args:
            name: of its user: lower-case letters, digits, hyphens.
            scope: ``predict``, ``as_of``, ``feedback`` or ``admin``.
            rate: most requests a second; None: as many as it likes.
            expires_us: from when on it is refused, UTC microseconds; None: never.

        Raises:
            DefinitionError: one of them cannot be right.
            ConflictError: the name has a key.
        """
        from skewless.infra.access.api_keys import ApiKey, add_key, generate_secret, hash_secret

        secret = generate_secret(name)
        key = ApiKey(
            name=name,
            digest=hash_secret(secret.encode()),
            scopes=frozenset(scope),
            rate=rate,
            created_us=self.project.clock.now_us(),
            expires_us=expires_us,
        )
        add_key(self._file.read(), key)
        if not dry_run:
            self._file.add(key)
        return NewKey(key=key, secret=secret)

    def list(self) -> Sequence[ApiKey]:
        """Return all keys in the order they were made, also those that have expired; the secrets are not known."""
        return self._file.read()

    def revoke(self, name: str, *, dry_run: bool = False) -> None:
        """Forget a key.

        Raises:
            RequestError: the name has none.
        """
        from skewless.infra.access.api_keys import remove_key

        remove_key(self._file.read(), name)
        if not dry_run:
            self._file.revoke(name)

    @property
    def _file(self) -> KeyFile:
        from skewless.infra.access.key_file import KeyFile

        return KeyFile(self.project.state)
