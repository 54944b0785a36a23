"""API keys: what is remembered of them, which is enough to know a key and too little to make one."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from skewless.contract.clock import from_us
from skewless.contract.errors import ConflictError, DefinitionError
from skewless.contract.names import check_known

Scope = Literal["predict", "as_of", "feedback", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
SECRET_CHARS = 44  # of a key, behind its prefix: an underscore and 256 bits in base64url
_SECRET_BYTES = 32
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as it is remembered: all but the key itself.

    Args:
        name: who asks; lower-case letters, digits and hyphens, because it is a part of the key.
        digest: SHA-256 of the key, 32 bytes. A key is 256 random bits, not a password: nothing can be guessed, so a
            slow hash would only make each request slow.
        scopes: what it may do.
        rate: requests a second, over all workers; None: as many as it likes.
        created_us: when it was made, microseconds since the epoch, UTC.
        expires_us: from when on it is not valid; None: never.

    Raises:
        DefinitionError: a value cannot be right.
    """

    name: str
    digest: bytes
    scopes: frozenset[str]
    rate: float | None = None
    created_us: int
    expires_us: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise self._wrong(
                "has a name that no key can hold",
                self.name,
                "use at most 40 lower-case letters, digits and, between them, hyphens",
            )
        if not self.scopes or not self.scopes <= set(SCOPES):
            raise self._wrong("has no such scope", ", ".join(sorted(self.scopes)), f"use some of {', '.join(SCOPES)}")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise self._wrong("has no such rate", self.rate, "use a positive number of requests a second")
        if self.expires_us is not None and self.expires_us <= self.created_us:
            raise self._wrong("expires before it exists", from_us(self.expires_us).isoformat(), "use a later time")

    def _wrong(self, problem: str, value: object, fix: str) -> DefinitionError:
        return DefinitionError(f"API key {self.name!r}", problem, value=value, fix=fix)

    def valid_at(self, now_us: int) -> bool:
        """Say whether the key has not expired."""
        return self.expires_us is None or now_us < self.expires_us

    def as_dict(self) -> dict[str, object]:
        """Return what people may see: everything but the hash; times as ISO 8601, UTC."""
        return {
            "name": self.name,
            "scopes": [scope for scope in SCOPES if scope in self.scopes],
            "rate": self.rate,
            "created": from_us(self.created_us).isoformat(),
            "expires": None if self.expires_us is None else from_us(self.expires_us).isoformat(),
        }


def prefix_of(name: str) -> bytes:
    """Return how the key of a name begins, which is no secret.

    >>> prefix_of("web")
    b'sk_web'
    """
    return b"sk_" + name.encode()


def new_secret(name: str) -> str:
    """Return a new key: ``sk_NAME_`` and 256 random bits as 43 characters; it is stored nowhere.

    >>> len(new_secret("web")), new_secret("web")[:7]
    (50, 'sk_web_')
    """
    return f"sk_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def digest_of(secret: bytes) -> bytes:
    """Return what is remembered of a key: its SHA-256, 32 bytes."""
    return hashlib.sha256(secret).digest()


def with_key(keys: Iterable[ApiKey], new: ApiKey) -> tuple[ApiKey, ...]:
    """Return some keys and a new one.

    Raises:
        ConflictError: there is one of this name.
    """
    kept = tuple(keys)
    if any(key.name == new.name for key in kept):
        raise ConflictError(
            f"API key {new.name!r}", "exists", fix=f"choose another name, or `skewless keys revoke {new.name}` first"
        )
    return (*kept, new)


def without_key(keys: Iterable[ApiKey], name: str) -> tuple[ApiKey, ...]:
    """Return some keys without the one of a name.

    Raises:
        RequestError: there is none of this name.
    """
    given = tuple(keys)
    check_known("API key", name, [key.name for key in given])
    return tuple(key for key in given if key.name != name)
