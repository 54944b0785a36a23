"""The files of the prediction log: their names, which of them hold it or are proven, and how one is written.

::

    00001768478400123456-3f2a91c07b5d-000004.parquet    what a server wrote; the first time in it, its writer, a number
    00001768435200000000-merged-000000.parquet          what housekeeping merged: a UTC day, a number in the day

A merged file names the files whose rows it holds. From the moment that it stands they count no more, though they stay
for those who had begun to read them.
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
from skewless.infra.storage.durable import hold_lock, replace_durable

FOLDER = "predictions"  # in the state folder
PIECE_ROWS = 50_000  # what readers hold at a time
DAY_US = 86_400_000_000
_MERGED_FROM = b"skewless.merged_from"
_WRITTEN = re.compile(r"(\d{20})-[0-9a-f]{12}-\d{6,}\.parquet")
_MERGED = re.compile(r"(\d{20})-merged-(\d{6,})\.parquet")
# What is the same in many rows. Of other columns a dictionary would only be tried, and given up.
_REPEATED = (
    *("t", "asked_at", "read_start", "read_end", "skew_us", "source", "format", "missing", "role", "policy"),
    *("model", "version", "runtime_id", "tolerance", "plan_hash", "transform_hashes.list.element"),
    *(f"reads.list.element.{name}" for name in ("view", "hash", "status", "run_id", "generation")),
)
_PROVEN = "proven.json"


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """The Parquet files of a folder.

    Args:
        names: all, in order.
        written: start of a UTC day -> those whose first prediction is of that day, as servers wrote them.
        merged: start of a UTC day -> number -> the file that was merged from such.
    """

    names: list[str]
    written: Mapping[int, list[str]]
    merged: Mapping[int, Mapping[int, str]]

    @classmethod
    def of(cls, folder: Path) -> FileListing:
        """Return what stands in a folder; nothing if there is none."""
        names = sorted(path.name for path in folder.glob("*.parquet"))
        written: dict[int, list[str]] = defaultdict(list)
        merged: dict[int, dict[int, str]] = defaultdict(dict)
        for name in names:
            if found := _WRITTEN.fullmatch(name):
                written[int(found[1]) // DAY_US * DAY_US].append(name)
            elif found := _MERGED.fullmatch(name):
                merged[int(found[1])][int(found[2])] = name
        return cls(names=names, written=written, merged=merged)

    def merged_beside_written(self) -> list[str]:
        """Return the merged files whose sources may still stand."""
        return [name for day in self.written if day in self.merged for name in self.merged[day].values()]


def log_files(folder: Path) -> list[Path]:
    """Return the files that hold the prediction log, each prediction in one of them, in the order of their names.

    Raises:
        StoreError: a file is missing, cut short or altered.
    """
    Inventory(folder).files()
    found = FileListing.of(folder)
    replaced = {source for name in found.merged_beside_written() for source in merged_from(folder / name)}
    return [folder / name for name in found.names if name not in replaced]


def merged_name(day_us: int, number: int) -> str:
    """Return the name of a merged file.

    >>> merged_name(1_768_435_200_000_000, 0)
    '00001768435200000000-merged-000000.parquet'
    """
    return f"{day_us:020d}-merged-{number:06d}.parquet"


def with_sources(rows: pa.Table, names: list[str]) -> pa.Table:
    """Return rows that say, as a file, the names of which files they came from."""
    return rows.replace_schema_metadata({_MERGED_FROM: json.dumps(names)})


def merged_from(path: Path) -> list[str]:
    """Return the names of the files whose rows a merged file holds, in the order of the rows.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return list(json.loads(pq.read_metadata(path).metadata[_MERGED_FROM]))
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"prediction log file {path.name!r}", f"is damaged: {error!r}", fix="remove or restore the damaged file"
        ) from error


def write_rows(rows: pa.Table, where: Any) -> None:  # noqa: ANN401 - a path, or a stream of Arrow's
    """Write a file of the log; no bit of a vector or score changes.

    Raises:
        OSError: the disk refused.
    """
    pq.write_table(
        rows,
        where,
        compression="zstd",
        use_dictionary=list(_REPEATED),
        column_encoding={"vector.list.element": "BYTE_STREAM_SPLIT"},
        write_statistics=["t", "model", "version"],
    )


def proven_files(state: Path) -> frozenset[str]:
    """Return the names of the files whose predictions were all proven; none where that is not known."""
    try:
        names = json.loads((state / _PROVEN).read_text())["files"]
        return frozenset(name for name in names if isinstance(name, str))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def add_proven(state: Path, names: Collection[str]) -> None:
    """Keep names of proven files, beside those from before that are still there.

    Raises:
        StoreError: the disk refused; the files are proven once more then.
    """
    with hold_lock(state / "proven.lock"):
        standing = {path.name for path in (state / FOLDER).glob("*.parquet")}
        body = {"files": sorted((proven_files(state) | set(names)) & standing)}
        replace_durable(state / _PROVEN, json.dumps(body).encode())
