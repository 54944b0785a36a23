"""API keys, and names of client certificates that count as one.

Of a key only its SHA-256 is stored: it is enough to verify a key and not enough to recreate it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from skewless.contract.clock import from_us
from skewless.contract.errors import ConflictError, DefinitionError, StoreError
from skewless.contract.names import RULE, check_known, is_name
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState

Scope = Literal["predict", "as_of", "feedback", "view", "operate", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
SECRET_CHARS = 44  # after the prefix of a key: an underscore and 256 bits in base64url
_SECRET_BYTES = 32
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_CERTIFICATE = re.compile(r"(dns|uri|email|subject):[!-~](?:[ -~]{0,510}[!-~])?")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """The stored description of an API key, without its secret; a client certificate can replace the secret.

    Args:
        name: the caller; lower-case letters, digits and hyphens, because the key contains it.
        digest: SHA-256 of the key, 32 bytes. A key is 256 random bits, not a password: nobody can guess it, so a slow
            hash would only slow down each request. None: the caller shows a client certificate instead.
        certificate: name in the client certificate of the caller: ``dns:NAME``, ``uri:URI``, ``email:ADDRESS`` or
            ``subject:NAME`` (RFC 4514); None: the caller sends a key.
        scopes: the operations that the key permits.
        models: the only models that the key permits; None: all.
        rate: requests a second, over all workers; None: unlimited.
        created_us: creation time, microseconds since the epoch, UTC.
        expires_us: expiry time, in the same unit; None: never.

    Raises:
        DefinitionError: a value is invalid.
    """

    name: str
    digest: bytes | None
    certificate: str | None = None
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    rate: float | None = None
    created_us: int
    expires_us: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise self._error(
                "has an invalid name",
                self.name,
                "use at most 40 lower-case letters, digits and, between them, hyphens",
            )
        if not self.scopes or not self.scopes <= set(SCOPES):
            raise self._error(
                "has an unknown scope", ", ".join(sorted(self.scopes)), f"use some of {', '.join(SCOPES)}"
            )
        if self.models is not None and (not self.models or not all(map(is_name, self.models))):
            raise self._error("has an invalid model", ", ".join(sorted(map(str, self.models))), RULE)
        if (self.digest is None) is (self.certificate is None):
            raise self._error("has both a secret and a certificate, or neither", None, "use one of them")
        if self.certificate is not None and not _CERTIFICATE.fullmatch(self.certificate):
            fix = "write dns:NAME, uri:URI, email:ADDRESS or subject:NAME, with printable ASCII characters"
            raise self._error("has an invalid certificate name", self.certificate, fix)
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise self._error("has an invalid rate", self.rate, "use a positive number of requests a second")
        if self.expires_us is not None and self.expires_us <= self.created_us:
            raise self._error("expires before its creation", from_us(self.expires_us).isoformat(), "use a later time")

    def _error(self, problem: str, value: object, fix: str) -> DefinitionError:
        return DefinitionError(f"API key {self.name!r}", problem, value=value, fix=fix)

    def is_valid_at(self, now_us: int) -> bool:
        """Return whether the key has not expired."""
        return self.expires_us is None or now_us < self.expires_us

    def as_dict(self) -> dict[str, object]:
        """Return all fields but the hash, to show to people; times as ISO 8601, UTC."""
        return {
            "name": self.name,
            "scopes": [scope for scope in SCOPES if scope in self.scopes],
            "models": None if self.models is None else sorted(self.models),
            "certificate": self.certificate,
            "rate": self.rate,
            "created": from_us(self.created_us).isoformat(),
            "expires": None if self.expires_us is None else from_us(self.expires_us).isoformat(),
        }


def key_prefix(name: str) -> bytes:
    """Return the first characters of the key of a name; they are not secret.

    >>> key_prefix("web")
    b'sk_web'
    """
    return b"sk_" + name.encode()


def generate_secret(name: str) -> str:
    """Return a new key: ``sk_NAME_`` and 256 random bits as 43 characters; skewless never stores it.

    >>> len(generate_secret("web")), generate_secret("web")[:7]
    (50, 'sk_web_')
    """
    return f"sk_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def hash_secret(secret: bytes) -> bytes:
    """Return the SHA-256 of a key, 32 bytes: the only form in which it is stored."""
    return hashlib.sha256(secret).digest()


def add_key(keys: Iterable[ApiKey], new: ApiKey) -> tuple[ApiKey, ...]:
    """Return the keys with a new one added.

    Raises:
        ConflictError: a key of this name, or of this certificate, exists.
    """
    existing = tuple(keys)
    for key in existing:
        if key.name == new.name:
            fix = f"choose another name, or `skewless keys revoke {new.name}` first"
            raise ConflictError(f"API key {new.name!r}", "exists", fix=fix)
        # Otherwise the order of the keys would decide about the rights of a certificate.
        if key.certificate is not None and key.certificate == new.certificate:
            fix = f"`skewless keys revoke {key.name}` first"
            raise ConflictError(f"API key {new.name!r}", f"has the certificate of {key.name!r}", fix=fix)
    return (*existing, new)


def remove_key(keys: Iterable[ApiKey], name: str) -> tuple[ApiKey, ...]:
    """Return the keys without the key of a name.

    Raises:
        RequestError: no key has this name.
    """
    existing = tuple(keys)
    check_known("API key", name, [key.name for key in existing])
    return tuple(key for key in existing if key.name != name)


_DOCUMENT = "project"
_FORMAT = 1
_DIGEST_BYTES = 32
_Keys = tuple[ApiKey, ...]


class KeyStore:
    """The API keys of a project, in its database.

    Args:
        state: the project's state.
    """

    def __init__(self, state: ProjectState) -> None:
        self._database, self._documents = state.database, Documents(state.database, "api_keys")

    def revision(self) -> int:
        """Return a number that increases with each change, and after an outage of the database; 0: there was none."""
        return self._documents.revision(_DOCUMENT) + self._database.outages()

    def read(self) -> _Keys:
        """Return all keys in order of their creation, expired keys too.

        Raises:
            StoreError: the database is unavailable, or the keys are corrupt.
        """
        body = self._documents.get(_DOCUMENT)
        return () if body is None else _decode(body)

    def add(self, key: ApiKey) -> None:
        """Store a key; servers accept it within a second.

        Raises:
            ConflictError: a key of this name exists.
            StoreError: the database is unavailable.
        """
        with self._documents.edit(_DOCUMENT, _encode(())) as body:
            body.update(_encode(add_key(_decode(body), key)))

    def revoke(self, name: str) -> None:
        """Delete a key; servers reject it within a second.

        Raises:
            RequestError: no key has this name.
            StoreError: the database is unavailable.
        """
        with self._documents.edit(_DOCUMENT, _encode(())) as body:
            body.update(_encode(remove_key(_decode(body), name)))


def _encode(keys: _Keys) -> dict[str, Any]:
    return {"format": _FORMAT, "keys": [_encode_key(key) for key in keys]}


def _encode_key(key: ApiKey) -> dict[str, Any]:
    item: dict[str, Any] = {name: getattr(key, name) for name in ("name", "rate", "created_us", "expires_us")}
    item["scopes"] = sorted(key.scopes)
    # A release refuses keys with a part that it does not know, rather than ignore a restriction.
    if key.digest is not None:
        item["sha256"] = key.digest.hex()
    if key.certificate is not None:
        item["certificate"] = key.certificate
    if key.models is not None:
        item["models"] = sorted(key.models)
    return item


def _decode(body: Mapping[str, Any]) -> _Keys:
    try:
        return _decode_keys(body)
    except (ValueError, TypeError, KeyError, AttributeError, DefinitionError, ConflictError) as error:
        fix = "restore the database from a backup"
        raise StoreError("API keys", f"are corrupt in the database: {error!r}", fix=fix) from error


def _decode_keys(body: Mapping[str, Any]) -> _Keys:
    if body["format"] != _FORMAT:
        raise ValueError(f"format {body['format']!r}")
    keys: _Keys = ()
    for item in body["keys"]:
        values = {name: value for name, value in item.items() if name != "sha256"}
        values |= {"digest": bytes.fromhex(item["sha256"]) if "sha256" in item else None}
        values |= {name: frozenset(item[name]) for name in ("scopes", "models") if name in item}
        if values["digest"] is not None and len(values["digest"]) != _DIGEST_BYTES:
            raise ValueError(f"{item['name']!r} has no SHA-256")
        keys = add_key(keys, ApiKey(**values))
    return keys
