"""The file of a project's API keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from skewless.contract.errors import ConflictError, DefinitionError, PlaceError
from skewless.infra.access.api_keys import ApiKey, add_key, remove_key
from skewless.infra.storage.durable import hold_lock, replace_durable
from skewless.infra.storage.project_state import ProjectState

_FORMAT = 1
_DIGEST_BYTES = 32
_OWNER_ONLY = 0o600
_Keys = tuple[ApiKey, ...]

Stamp = tuple[int, int, int]
"""Inode, time of change and size of a file; it differs after the file was replaced."""


def read_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; None: the file is missing or not accessible."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_size


class KeyFile:
    """The API keys of a project: ``api_keys.json`` in its state folder, which its owner alone may read.

    Writers exclude each other; readers need no lock, because a write replaces the file atomically.

    Args:
        state: the state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self.path = state / "api_keys.json"
        self._lock = state / "api_keys.lock"

    def stamp(self) -> Stamp | None:
        """Return the stamp of the file; None: the file is missing or not accessible."""
        return read_stamp(self.path)

    def read(self) -> _Keys:
        """Return all keys in order of their creation, expired keys too; no keys without a file.

        Raises:
            PlaceError: the file cannot be read, or does not contain API keys.
        """
        try:
            keys = _decode(self.path.read_bytes())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._file_error(f"cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, DefinitionError, ConflictError) as error:
            raise self._file_error(f"does not contain API keys: {error!r}") from error
        return keys

    def add(self, key: ApiKey) -> None:
        """Store a key; servers accept it within a second.

        Raises:
            ConflictError: a key of this name exists.
            StoreError: the disk refused the write.
        """
        self._change(lambda keys: add_key(keys, key))

    def revoke(self, name: str) -> None:
        """Delete a key; servers reject it within a second.

        Raises:
            RequestError: no key has this name.
            StoreError: the disk refused the write.
        """
        self._change(lambda keys: remove_key(keys, name))

    def _change(self, change: Callable[[_Keys], _Keys]) -> None:
        with hold_lock(self._lock):
            # Read under the lock, since another process may have changed the file.
            replace_durable(self.path, _encode(change(self.read())), _OWNER_ONLY)

    def _file_error(self, problem: str) -> PlaceError:
        fix = "make the server's user its owner, restore it, or delete it and add the keys again"
        return PlaceError(f"file {self.path}", problem, fix=fix)


def _encode(keys: _Keys) -> bytes:
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


def _decode(data: bytes) -> _Keys:
    body = json.loads(data)
    if body["format"] != _FORMAT:
        raise ValueError(f"format {body['format']!r}")
    keys: _Keys = ()
    for item in body["keys"]:
        keys = add_key(keys, _decode_key(item))
    return keys


def _decode_key(item: Mapping[str, Any]) -> ApiKey:
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
