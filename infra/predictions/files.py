"""The files of the prediction log: their names, merged and proven files, and how a file is written.

::

    00001768478400123456-3f2a91c07b5d-000004.parquet    written by a server: first time in it, writer, number
    00001768435200000000-merged-000000.parquet          merged by housekeeping: UTC day, number in the day

A merged file names its source files. As soon as it exists, readers ignore the sources, which stay for readers that had
already opened them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import StoreError
from skewless.infra.log.inventory import Inventory
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState

FOLDER = "predictions"  # in the state folder
BATCH_ROWS = 50_000  # rows that a reader holds in memory at a time
DAY_US = 86_400_000_000
_MERGED_FROM = b"skewless.merged_from"
_WRITTEN = re.compile(r"(\d{20})-[0-9a-f]{12}-\d{6,}\.parquet")
_MERGED = re.compile(r"(\d{20})-merged-(\d{6,})\.parquet")
# Columns with few distinct values. For other columns Parquet would try a dictionary in vain.
_DICTIONARY_COLUMNS = (
    *("t", "asked_at", "read_start", "read_end", "skew_us", "source", "format", "missing", "role", "policy"),
    *("model", "version", "runtime_id", "tolerance", "plan_hash", "transform_hashes.list.element"),
    *(f"reads.list.element.{name}" for name in ("view", "hash", "status", "run_id", "generation")),
)
_PROVEN, _NAME = "proven_files", "project"


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """The Parquet files of a folder.

    Args:
        names: all files, sorted.
        written: start of a UTC day -> the servers' files whose first prediction is of that day.
        merged: start of a UTC day -> number -> merged file of that day.
    """

    names: list[str]
    written: Mapping[int, list[str]]
    merged: Mapping[int, Mapping[int, str]]

    @classmethod
    def of(cls, folder: Path) -> FileListing:
        """Return the listing of a folder, empty if the folder does not exist."""
        names = sorted(path.name for path in folder.glob("*.parquet"))
        written: dict[int, list[str]] = defaultdict(list)
        merged: dict[int, dict[int, str]] = defaultdict(dict)
        for name in names:
            if match := _WRITTEN.fullmatch(name):
                written[int(match[1]) // DAY_US * DAY_US].append(name)
            elif match := _MERGED.fullmatch(name):
                merged[int(match[1])][int(match[2])] = name
        return cls(names=names, written=written, merged=merged)

    def merged_files_with_sources(self) -> list[str]:
        """Return the merged files whose sources may still exist."""
        return [name for day in self.written if day in self.merged for name in self.merged[day].values()]


def log_files(folder: Path) -> list[Path]:
    """Return the files to read, sorted by name; each prediction is in exactly one of them.

    Raises:
        StoreError: a file is missing, truncated or altered.
    """
    Inventory(folder).files()
    listing = FileListing.of(folder)
    replaced = {source for name in listing.merged_files_with_sources() for source in merged_from(folder / name)}
    return [folder / name for name in listing.names if name not in replaced]


def merged_name(day_us: int, number: int) -> str:
    """Return the name of a merged file.

    >>> merged_name(1_768_435_200_000_000, 0)
    '00001768435200000000-merged-000000.parquet'
    """
    return f"{day_us:020d}-merged-{number:06d}.parquet"


def add_source_names(rows: pa.Table, names: list[str]) -> pa.Table:
    """Return rows whose file metadata names the source files."""
    return rows.replace_schema_metadata({_MERGED_FROM: json.dumps(names)})


def merged_from(path: Path) -> list[str]:
    """Return the names of a merged file's sources, in the order of its rows.

    Raises:
        StoreError: the file is corrupt.
    """
    try:
        return list(json.loads(pq.read_metadata(path).metadata[_MERGED_FROM]))
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"prediction log file {path.name!r}", f"is corrupt: {error!r}", fix="remove or restore the corrupt file"
        ) from error


def write_rows(rows: pa.Table, where: Any) -> None:  # noqa: ANN401 - a path, or a stream of Arrow's
    """Write a file of the log; vectors and scores keep all bits.

    Raises:
        OSError: the disk refused the write.
    """
    pq.write_table(
        rows,
        where,
        compression="zstd",
        use_dictionary=list(_DICTIONARY_COLUMNS),
        column_encoding={"vector.list.element": "BYTE_STREAM_SPLIT"},
        write_statistics=["t", "model", "version"],
    )


def proven_files(state: ProjectState) -> frozenset[str]:
    """Return the names of the files whose predictions replay has proven.

    Raises:
        StoreError: the database is unavailable.
    """
    return frozenset((Documents(state.database, _PROVEN).get(_NAME) or {"files": []})["files"])


def add_proven(state: ProjectState, names: Collection[str]) -> None:
    """Add names of proven files to the list, and drop names of deleted files.

    Raises:
        StoreError: the database is unavailable; replay will prove these files again.
    """
    # The list is read before the folder: a file that another process adds meanwhile does not count as deleted.
    before = proven_files(state)
    existing = {path.name for path in (state / FOLDER).glob("*.parquet")}
    with Documents(state.database, _PROVEN).edit(_NAME, {"files": []}) as body:
        body["files"] = sorted((set(body["files"]) - (before - existing)) | (existing & set(names)))
