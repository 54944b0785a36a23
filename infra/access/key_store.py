"""The stored API keys of a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skewless.contract.errors import ConflictError, DefinitionError, StoreError
from skewless.infra.access.api_keys import ApiKey, add_key, remove_key
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState

_NAME = "project"
_FORMAT = 1
_DIGEST_BYTES = 32
_Keys = tuple[ApiKey, ...]


class KeyStore:
    """The API keys of a project, in its database.

    Args:
        state: the project's state.
    """

    def __init__(self, state: ProjectState) -> None:
        self._documents = Documents(state.database, "api_keys")

    def revision(self) -> int:
        """Return a number that increases with each change; 0: nobody has added a key."""
        return self._documents.revision(_NAME)

    def read(self) -> _Keys:
        """Return all keys in order of their creation, expired keys too.

        Raises:
            StoreError: the database is unavailable, or the keys are corrupt.
        """
        body = self._documents.get(_NAME)
        return () if body is None else _decode(body)

    def add(self, key: ApiKey) -> None:
        """Store a key; servers accept it within a second.

        Raises:
            ConflictError: a key of this name exists.
            StoreError: the database is unavailable.
        """
        self._change(lambda keys: add_key(keys, key))

    def revoke(self, name: str) -> None:
        """Delete a key; servers reject it within a second.

        Raises:
            RequestError: no key has this name.
            StoreError: the database is unavailable.
        """
        self._change(lambda keys: remove_key(keys, name))

    def _change(self, change: Callable[[_Keys], _Keys]) -> None:
        with self._documents.edit(_NAME, _encode(())) as body:
            body.update(_encode(change(_decode(body))))


def _encode(keys: _Keys) -> dict[str, Any]:
    items = [
        {
            "name": key.name,
            "sha256": key.digest.hex(),
            "scopes": sorted(key.scopes),
            "rate": key.rate,
            "created_us": key.created_us,
            "expires_us": key.expires_us,
        }
        for key in keys
    ]
    return {"format": _FORMAT, "keys": items}


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
        values |= {"digest": bytes.fromhex(item["sha256"]), "scopes": frozenset(item["scopes"])}
        if len(values["digest"]) != _DIGEST_BYTES:
            raise ValueError(f"{item['name']!r} has no SHA-256")
        keys = add_key(keys, ApiKey(**values))
    return keys
