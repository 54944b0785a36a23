"""The file of a project's API keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from skewless.contract.errors import ConflictError, DefinitionError, PlaceError
from skewless.infra.access.api_keys import ApiKey, with_key, without_key
from skewless.infra.storage.durable import hold_lock, replace_durable

_FORMAT = 1
_DIGEST_BYTES = 32
_OWNER_ONLY = 0o600
_Keys = tuple[ApiKey, ...]

Stamp = tuple[int, int, int]
"""What is another when a file was replaced: inode, time of change, size."""


def stamp_of(path: Path) -> Stamp | None:
    """Return what tells this version of a file from others; None: there is no file, or none that can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size


class KeyFile:
    """The API keys of a project: ``api_keys.json`` in its state folder, which its owner alone may read.

    Writers exclude each other; readers need no lock, because the file is replaced as a whole.

    Args:
        state: the state folder.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / "api_keys.json"
        self._lock = state / "api_keys.lock"

    def stamp(self) -> Stamp | None:
        """Return what tells this version of the file from others; None: there is no file, or none that can be seen."""
        return stamp_of(self.path)

    def read(self) -> _Keys:
        """Return all keys in the order they were made, also those that have expired; no file: none.

        Raises:
            PlaceError: the file cannot be read, or does not hold what was written.
        """
        try:
            keys = _decoded(self.path.read_bytes())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._broken(f"cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, DefinitionError, ConflictError) as error:
            raise self._broken(f"does not hold API keys: {error!r}") from error
        return keys

    def add(self, key: ApiKey) -> None:
        """Remember a key; servers know it within a second.

        Raises:
            ConflictError: there is one of this name.
            StoreError: the disk refused.
        """
        self._change(lambda keys: with_key(keys, key))

    def revoke(self, name: str) -> None:
        """Forget a key; servers refuse it within a second.

        Raises:
            DefinitionError: there is none of this name.
            StoreError: the disk refused.
        """
        self._change(lambda keys: without_key(keys, name))

    def _change(self, change: Callable[[_Keys], _Keys]) -> None:
        with hold_lock(self._lock):
            replace_durable(self.path, _encoded(change(self.read())), _OWNER_ONLY)

    def _broken(self, problem: str) -> PlaceError:
        fix = "let the user own it that serves, or restore it, or remove it and add the keys anew"
        return PlaceError(f"file {self.path}", problem, fix=fix)


def _encoded(keys: _Keys) -> bytes:
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
    return (json.dumps({"format": _FORMAT, "keys": items}, indent=1) + "\n").encode()


def _decoded(data: bytes) -> _Keys:
    body = json.loads(data)
    if body["format"] != _FORMAT:
        raise ValueError(f"format {body['format']!r}")
    keys: _Keys = ()
    for item in body["keys"]:
        keys = with_key(keys, _key(item))
    return keys


def _key(item: Mapping[str, Any]) -> ApiKey:
    digest = bytes.fromhex(item["sha256"])
    if len(digest) != _DIGEST_BYTES:
        raise ValueError(f"{item['name']!r} has no SHA-256")
    return ApiKey(
        name=item["name"],
        digest=digest,
        scopes=frozenset(item["scopes"]),
        rate=item["rate"],
        created_us=int(item["created_us"]),
        expires_us=item["expires_us"],
    )
