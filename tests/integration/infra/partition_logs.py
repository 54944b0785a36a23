"""Helpers for the tests of logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from skewless.infra.log.catalog import Catalog
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import forget_readers
from skewless.infra.platform.storage.project_state import ProjectState

PARTITION = "events/arrivals/ab12cd/0"
LATER = 2**62


def opened(state: ProjectState, partition: str = PARTITION) -> PartitionLog:
    return PartitionLog(state, partition)


def rows(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64())})


def fill(log: PartitionLog, *sizes: int, known_us: int | None = None) -> None:
    """Append segments of consecutive values; with a time, also their ends."""
    for size in sizes:
        start = log.next_seq()
        segment = log.append(rows(*range(start, start + size)))
        if known_us is not None:
            log.record_end(segment.first, segment.last, known_us)


def read(log: PartitionLog, first: int = 0, last: int | None = None, columns: Sequence[str] | None = None) -> list[Any]:
    return [row for part in log.read(first, last, columns) for row in part.to_pylist()]


def values(log: PartitionLog) -> list[int]:
    return [row["x"] for row in read(log, columns=["x"])]


def bounds(log: PartitionLog, first: int = 0, last: int | None = None) -> list[tuple[int, int]]:
    return [(segment.first, segment.last) for segment in log.segments(first, last)]


def objects(state: ProjectState) -> set[str]:
    """Return the names of all objects, unfinished ones included."""
    folders = ("log", "staging", "predictions", "outcomes", "spooled")
    return {item.name for folder in folders for item in state.storage.list_objects(folder)}


def listed(state: ProjectState) -> set[str]:
    """Return the names of the objects that logs have."""
    catalog = Catalog(state.database)
    return {segment.stored.name for name in catalog.partitions() for segment in catalog.segments(name)}


def sweep(state: ProjectState) -> list[str]:
    """Delete what housekeeping would delete a day later; return the orphans."""
    catalog = Catalog(state.database)
    forget_readers(state.database)
    orphans = [name for folder in ("log", "staging") for name in catalog.find_orphans(state.storage, folder, LATER)]
    state.storage.delete(orphans)
    catalog.delete_unread(state.storage)
    return orphans


def fill_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def path_of(state: ProjectState, name: str) -> Path:
    return state / name
