"""A series of records in one file, one line of JSON each, appended durably."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skewless.infra.storage.durable import disk_error, hold_lock, sync_folder

Record = dict[str, Any]


class RecordSeries:
    """Records in the order in which they were appended.

    A kill during an append leaves at most a partial line. It is skipped, and the next record begins on a new line.

    Args:
        path: of the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record of plain JSON values and wait until it is on disk; safe from several processes.

        Raises:
            StoreError: the file cannot be written.
            ValueError: a number is not finite.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            with hold_lock(self._path.with_suffix(".lock")), self._path.open("ab") as file:
                # A killed writer may have left a partial line; without a new line, this record would be lost with it.
                file.write(line if self._ends_with_newline() else b"\n" + line)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self._path.parent)
        except OSError as error:
            raise disk_error(self._path, error) from error

    def read(self) -> list[Record]:
        """Return all records, oldest first; skips invalid lines."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [record for record in map(_parse_record, lines) if record is not None]

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            return file.read() in {b"", b"\n"}


def _parse_record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
