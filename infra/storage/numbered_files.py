"""Numbered JSON files that are only ever added to: the newest is the value, the others are its history."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skewless.contract.errors import PackageError
from skewless.infra.storage.durable import exclusive, make_folder, refused, sync_folder, write_durable
from skewless.infra.storage.names import number

_LEFTOVER = ".move-"
_LEVELS = 3  # folders whose names may be new


class NumberedFiles:
    """The numbered files of one folder.

    A file is linked into place whole or not at all, under a number that nobody else has: so adding is a
    compare-and-set, the history costs nothing, and a kill at any point loses nothing.

    Args:
        folder: may not exist yet.
        lock: advisory lock file, which keeps the sweeping of leftovers out of others' way.
        noun: what one file holds, for errors.
    """

    def __init__(self, folder: Path, lock: Path, noun: str) -> None:
        self._folder = folder
        self._lock = lock
        self._noun = noun

    def numbers(self) -> list[int]:
        """Return the numbers taken, ascending."""
        try:
            with os.scandir(self._folder) as entries:
                stems = (entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))
                return sorted(int(stem) for stem in stems if stem.isdigit())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, sequence: int) -> Any:  # noqa: ANN401 - any JSON value
        """Return what a file holds.

        Raises:
            PackageError: it holds no JSON.
        """
        try:
            return json.loads((self._folder / f"{number(sequence)}.json").read_bytes())
        except ValueError as error:
            raise self.damaged(sequence) from error

    def backwards(self) -> Iterator[tuple[int, Any]]:
        """Yield every number with what its file holds, newest first; what is not asked for is not read."""
        return ((sequence, self.read(sequence)) for sequence in reversed(self.numbers()))

    def append(self, sequence: int, data: Mapping[str, Any]) -> None:
        """Add a file.

        Raises:
            FileExistsError: somebody else has the number.
            StoreError: the disk refused; nothing was added.
        """
        try:
            with exclusive(self._lock):
                self._link(sequence, (json.dumps(data, sort_keys=True) + "\n").encode())
        except FileExistsError:
            raise
        except OSError as error:
            raise refused(self._folder, error) from error

    def damaged(self, sequence: int) -> PackageError:
        """Return the error that names a file which does not hold what it should."""
        return PackageError(
            f"{self._noun} '{self._folder.name}/{number(sequence)}.json'",
            "is damaged",
            fix="restore the file, or move it out of the folder",
        )

    def _link(self, sequence: int, text: bytes) -> None:
        make_folder(self._folder)
        for leftover in self._folder.glob(f"{_LEFTOVER}*"):
            leftover.unlink(missing_ok=True)
        staging = self._folder / f"{_LEFTOVER}{secrets.token_hex(8)}"
        write_durable(staging, text)
        try:
            os.link(staging, self._folder / f"{number(sequence)}.json")
        finally:
            staging.unlink(missing_ok=True)
        for place in (self._folder, *self._folder.parents[: _LEVELS - 1]):
            sync_folder(place)
