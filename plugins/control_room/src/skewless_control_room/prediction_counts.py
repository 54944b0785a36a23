"""Counts logged predictions by version and hour, one segment of the log at a time, the latest first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.errors import StoreError
from skewless.contract.traffic import Role
from skewless.infra.log.catalog import Catalog, Segment
from skewless.infra.log.readers import register_reader
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS

HOUR_US = 3_600_000_000
_COLUMNS = ("t", "model", "version", "role")
_POSITIONS = 20_000  # of one query of the catalog
_CACHED_FILES = 8_192


class HourOfVersion(NamedTuple):
    """An hour of a version in one role.

    Args:
        hour_us: its start, UTC microseconds.
    """

    version: str
    role: Role
    hour_us: int


@dataclass(frozen=True, kw_only=True)
class PredictionCounts:
    """Numbers of logged predictions of a model.

    Args:
        since_us: all logged predictions from this time on are counted, UTC microseconds.
        is_complete: whether that is the time that was asked for.
        hours: number by version, role and hour.
        files: segments that were counted.
    """

    since_us: int
    is_complete: bool
    hours: Mapping[HourOfVersion, int]
    files: int


def count_predictions(state: ProjectState, model: str, *, since_us: int, budget_s: float) -> PredictionCounts:
    """Return the number of predictions of a model by version, role and hour; changes nothing.

    Segments are counted from the latest on, until the time is spent. This process remembers the counts of each file, so
    that the next call counts further. Predictions that a server has not shipped yet are not counted.

    Args:
        since_us: start of the first hour, UTC microseconds.
        budget_s: time for files that were not counted before, seconds; at least one is counted.

    Raises:
        StoreError: the database or the storage is unavailable, or a file is corrupt.
    """
    register_reader(state.database)
    counts: Counter[HourOfVersion] = Counter()
    segments, deadline, files = list(_latest_first(Catalog(state.database), since_us)), time.monotonic() + budget_s, 0
    for segment in segments:
        if files and time.monotonic() > deadline:
            break
        path = str(state.storage.local_path(segment.stored))
        for (name, version, role, hour_us), n in _count_file(path):
            if name == model and hour_us >= since_us:
                counts[HourOfVersion(version, role, hour_us)] += n
        files += 1
    left = [segment.at_us for segment in segments[files:]]
    return PredictionCounts(since_us=max([since_us, *left]), is_complete=not left, hours=counts, files=files)


def _latest_first(catalog: Catalog, since_us: int) -> Iterator[Segment]:
    """Yield the segments that end after a time, the latest first."""
    end = catalog.next_seq(PREDICTIONS)
    while end > 0:
        part = catalog.segments(PREDICTIONS, max(0, end - _POSITIONS), end - 1)
        if not part:
            return
        # Segments without a time may have any.
        recent = [segment for segment in reversed(part) if not 0 < segment.at_us < since_us]
        yield from recent
        if not recent:
            return
        end = part[0].first


@lru_cache(maxsize=_CACHED_FILES)
def _count_file(path: str) -> tuple[tuple[tuple[str, str, Role, int], int], ...]:
    """Return the numbers by model, version, role and hour of a file, which never changes."""
    try:
        with pq.ParquetFile(path) as file:
            rows = file.read(columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise StoreError("prediction log", f"cannot be read: {error}", fix="restore the corrupt file") from error
    rows = rows.set_column(0, "t", pc.multiply(pc.divide(rows["t"], HOUR_US), HOUR_US))
    counted = rows.group_by(list(_COLUMNS)).aggregate([([], "count_all")])
    return tuple(
        ((row["model"], row["version"], row["role"], row["t"]), row["count_all"]) for row in counted.to_pylist()
    )
