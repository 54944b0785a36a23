"""Numbered JSON files that are never changed: the latest one is the value, the others are its history."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skewless.contract.errors import PackageError
from skewless.infra.storage.durable import disk_error, hold_lock, make_folder, sync_folder, write_durable
from skewless.infra.storage.names import number

_LEFTOVER = ".move-"
_LEVELS = 3  # parent folders that may be new and need a sync


class NumberedFiles:
    """The numbered files of one folder.

    A file is linked atomically under a number that no other file has. So an append is a compare-and-set, the history
    costs nothing, and a kill at any point loses nothing.

    Args:
        folder: may not exist yet.
        lock: advisory lock file; keeps the removal of leftovers apart from writers.
        noun: the thing that a file describes, for errors.
    """

    def __init__(self, folder: Path, lock: Path, noun: str) -> None:
        self._folder = folder
        self._lock = lock
        self._noun = noun

    def numbers(self) -> list[int]:
        """Return the used numbers, ascending."""
        try:
            with os.scandir(self._folder) as entries:
                stems = (entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))
                return sorted(int(stem) for stem in stems if stem.isdigit())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, sequence: int) -> Any:  # noqa: ANN401 - any JSON value
        """Return the content of a file.

        Raises:
            PackageError: it is not valid JSON.
        """
        try:
            return json.loads((self._folder / f"{number(sequence)}.json").read_bytes())
        except ValueError as error:
            raise self.corrupt_error(sequence) from error

    def read_latest_first(self) -> Iterator[tuple[int, Any]]:
        """Yield each number with the content of its file, latest first; files are read on demand."""
        return ((sequence, self.read(sequence)) for sequence in reversed(self.numbers()))

    def append(self, sequence: int, data: Mapping[str, Any]) -> None:
        """Add a file.

        Raises:
            FileExistsError: the number is used.
            StoreError: the file cannot be written; nothing was added.
        """
        try:
            with hold_lock(self._lock):
                self._link(sequence, (json.dumps(data, sort_keys=True) + "\n").encode())
        except FileExistsError:
            raise
        except OSError as error:
            raise disk_error(self._folder, error) from error

    def corrupt_error(self, sequence: int) -> PackageError:
        """Return the error for a file with invalid content."""
        return PackageError(
            f"{self._noun} '{self._folder.name}/{number(sequence)}.json'",
            "is corrupt",
            fix="restore the file, or move it out of the folder",
        )

    def _link(self, sequence: int, text: bytes) -> None:
        make_folder(self._folder)
        # Under the lock, no other writer has a staging file: these are left by killed ones.
        for leftover in self._folder.glob(f"{_LEFTOVER}*"):
            leftover.unlink(missing_ok=True)
        staging = self._folder / f"{_LEFTOVER}{secrets.token_hex(8)}"
        write_durable(staging, text)
        try:
            # Unlike a rename, a link fails if the number is used: this is the compare-and-set.
            os.link(staging, self._folder / f"{number(sequence)}.json")
        finally:
            staging.unlink(missing_ok=True)
        for folder in (self._folder, *self._folder.parents[: _LEVELS - 1]):
            sync_folder(folder)
