"""What of which files stands in the log: files are known by their rows, not by their names (SEMANTICS 4.4).

A record for each import partition says how many rows were taken and their digest. It is durable before the rows are:
what a record intends and the log does not hold is done again after a kill.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from skewless.contract.columns import Column, columns_from
from skewless.contract.errors import StoreError
from skewless.infra.storage.durable import replace_durable


@dataclass(frozen=True, kw_only=True)
class FilePrefix:
    """The first rows of a file: how many, and their digest."""

    rows: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """The rows of one import partition.

    Args:
        key: name of the partition's folder.
        columns: those that the digests are made of.
        head: digest of the first row.
        done: the rows that were taken.
        next: the rows that are being taken; once the log holds any of them, it holds all that are new. None: nothing.
        files: of each file that has these rows, by its name: what it was, and its number of rows; a hint.
    """

    key: str
    columns: tuple[Column, ...]
    head: str
    done: FilePrefix
    next: FilePrefix | None = None
    files: dict[str, tuple[str, int]] = field(default_factory=dict)


class ImportRecords:
    """The records of one source.

    Args:
        folder: of the source's logs.
        dry_run: keep changes in memory only.
    """

    def __init__(self, folder: Path, *, dry_run: bool) -> None:
        self._folder = folder
        self._dry_run = dry_run
        self._records = {record.key: record for record in map(_read, sorted(folder.glob("import-*.json")))}

    def __iter__(self) -> Iterator[ImportRecord]:
        """Yield all records."""
        return iter(tuple(self._records.values()))

    def of_file(self, name: str) -> ImportRecord | None:
        """Return the record that a file of this name was last taken into."""
        return next((record for record in self if name in record.files), None)

    def save(self, record: ImportRecord) -> ImportRecord:
        """Put a record in the place of the one before; return it.

        Raises:
            StoreError: the disk refused.
        """
        if self._records.get(record.key) != record:
            if not self._dry_run:
                replace_durable(self._path(record.key), json.dumps(asdict(record)).encode())
            self._records[record.key] = record
        return record

    def name_file(self, record: ImportRecord, name: str, fingerprint: str, rows: int) -> None:
        """Note that a file has the rows of a record; it had those of another before, perhaps."""
        for other in self:
            if other.key != record.key and name in other.files:
                self.save(replace(other, files={key: hint for key, hint in other.files.items() if key != name}))
        self.save(replace(record, files=record.files | {name: (fingerprint, rows)}))

    def free_key(self, name: str) -> str:
        """Return the name of a partition for a new file: that of its path, if it is the first there."""
        number, key = 0, _key(name)
        while key in self._records:
            number += 1
            key = _key(f"{name}#{number}")
        return key

    def _path(self, key: str) -> Path:
        return self._folder / f"import-{key}.json"


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _read(path: Path) -> ImportRecord:
    try:
        data = json.loads(path.read_text())
        return ImportRecord(
            key=data["key"],
            columns=columns_from(data["columns"]),
            head=data["head"],
            done=FilePrefix(**data["done"]),
            next=FilePrefix(**data["next"]) if data["next"] else None,
            files={name: (fingerprint, rows) for name, (fingerprint, rows) in data["files"].items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"import record {path}", "cannot be read", value=error, fix="restore it, or import into a new state folder"
        ) from error
