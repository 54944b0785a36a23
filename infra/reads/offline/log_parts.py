"""Read log partitions: files, applied times and delays of an event source, and rows by their positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skewless.contract.status import Int64Array
from skewless.contract.windows.state_layout import NEVER
from skewless.infra.log.catalog import IMPORTED, log_partitions
from skewless.infra.log.log_columns import DECLARED, EVENT, INGEST, KNOWN_AT, REJECT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import register_reader
from skewless.infra.log.reading import translate_query_errors
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.window_events import LogPartition, find_applied_times, read_column_names

if TYPE_CHECKING:
    import duckdb

LATE_US = 10_000_000
_MOST_EVENTS = 1_000_000


def read_log_partitions(state: ProjectState, source: str) -> list[LogPartition]:
    """Return the log partitions of a source, sorted by name."""
    parts = []
    for partition in log_partitions(state, source):
        log = PartitionLog(state, partition)
        # Read the ends first: an entry that moves from there into the files meanwhile is then read twice, not missed.
        ends = log.read_ends()
        parts.append(LogPartition(partition=partition, files=log.files(), ends=ends))
    return parts


@dataclass(frozen=True, kw_only=True)
class AppliedBatches:
    """The batches of one partition: when their positions were ingested, and when they had been applied; microseconds.

    Args:
        last: last position of each batch, growing.
        ingested_us: not after that of any later batch.
        ended_us: when the batch had been applied, not before any earlier batch; int64 maximum: not yet. For imported
            history: when it was ingested.
    """

    last: Int64Array
    ingested_us: Int64Array
    ended_us: Int64Array

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection, part: LogPartition) -> AppliedBatches:
        """Return the batches of a partition."""
        if not part.files:
            no_values = np.empty(0, dtype=np.int64)
            return cls(last=no_values, ingested_us=no_values, ended_us=no_values)
        files = list(part.files)
        columns = read_column_names(connection, files)
        known = KNOWN_AT if KNOWN_AT in columns else "NULL"
        if DECLARED in columns:
            # The known time of imported history is declared, but no state was read before the history was in it.
            known = f"CASE WHEN {DECLARED} THEN {INGEST} ELSE {known} END"
        rows = connection.sql(
            f"SELECT max({SEQ}) AS last, {INGEST}, {KNOWN_AT} FROM"
            f" (SELECT {SEQ}, {INGEST}, coalesce({known}, {NEVER}) AS {KNOWN_AT}"
            f" FROM read_parquet(?, union_by_name=true)) GROUP BY {INGEST}, {KNOWN_AT} ORDER BY last",
            params=[files],
        ).fetchnumpy()
        last = np.asarray(rows["last"], dtype=np.int64)
        ended_us = _known_at(rows, part, last)
        # A clock may be set back, so both times are widened to grow with the position: "possibly applied" is never too
        # late, and "surely applied" never too early. Replay would otherwise reject legitimate reads.
        ingested_us = np.minimum.accumulate(np.asarray(rows[INGEST], dtype=np.int64)[::-1])[::-1]
        return cls(last=last, ingested_us=ingested_us, ended_us=np.maximum.accumulate(ended_us))

    def last_surely_applied(self, t: Int64Array) -> Int64Array:
        """Return the last position up to which all positions had been applied before ``t``; -1: none."""
        return self._last(np.searchsorted(self.ended_us, t, side="left"))

    def last_possibly_applied(self, t: Int64Array) -> Int64Array:
        """Return the last position that may have been applied at ``t``; -1: none."""
        return self._last(np.searchsorted(self.ingested_us, t, side="right"))

    def _last(self, count: Int64Array) -> Int64Array:
        return np.asarray(np.append(self.last, -1)[np.asarray(count) - 1], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Delays from event time to known time; of a log with more than a million events, every n-th event counts.

    Args:
        events: number of events with a known time.
        late: share of the events with a delay of more than ten seconds; None without events.
        p50_s, p99_s: median and 99th percentile of the delays, seconds.
    """

    events: int
    late: float | None
    p50_s: float | None
    p99_s: float | None


def measure_event_delays(connection: duckdb.DuckDBPyConnection, parts: Sequence[LogPartition]) -> Delays:
    """Return the delays of the accepted events of a source."""
    rows = [_count_rows(connection, part) for part in parts if part.files]
    stride = 1 + sum(rows) // _MOST_EVENTS
    return _summarise([_read_delays(connection, part, stride) for part in parts if part.files])


def _summarise(parts: Sequence[Int64Array]) -> Delays:
    delays = np.sort(np.concatenate([*parts, np.empty(0, dtype=np.int64)]))
    n = len(delays)
    if not n:
        return Delays(events=0, late=None, p50_s=None, p99_s=None)
    p50, p99 = (float(delays[max(0, -(-n * share // 100) - 1)]) / 1e6 for share in (50, 99))
    return Delays(events=n, late=float((delays > LATE_US).mean()), p50_s=p50, p99_s=p99)


def measure_latest_delays(
    connection: duckdb.DuckDBPyConnection, state: ProjectState, source: str, *, partitions: int, rows: int
) -> Delays:
    """Return the delays of the latest events of a source's stream; imported history has no observed delay.

    Args:
        partitions: number of partitions that are read, the last by name.
        rows: number of rows that are read of each, the latest.
    """
    names = [name for name in log_partitions(state, source) if IMPORTED not in name][-partitions:]
    delays = []
    for name in names:
        log = PartitionLog(state, name)
        first, ends = max(0, log.next_seq() - rows), log.read_ends()
        part = LogPartition(partition=name, files=log.files(first), ends=ends)
        delays += [_read_delays(connection, part, 1, first)] if part.files else []
    return _summarise(delays)


def _count_rows(connection: duckdb.DuckDBPyConnection, part: LogPartition) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM read_parquet(?)", [list(part.files)]).fetchall()
    return int(count)


def _read_delays(connection: duckdb.DuckDBPyConnection, part: LogPartition, stride: int, first: int = 0) -> Int64Array:
    """Return the delays from event time to known time of a partition's events from a position on, microseconds."""
    files = list(part.files)
    known_sql = KNOWN_AT if KNOWN_AT in read_column_names(connection, files) else "NULL"
    query = (
        f"SELECT {SEQ}, {EVENT}, coalesce({known_sql}, {NEVER}) AS {KNOWN_AT} FROM read_parquet(?, union_by_name=true)"
        f" WHERE {REJECT} IS NULL AND {SEQ} >= {first} AND {SEQ} % {stride} = 0"
    )
    rows = connection.sql(query, params=[files]).fetchnumpy()
    known = _known_at(rows, part, np.asarray(rows[SEQ], dtype=np.int64))
    is_known = known != NEVER
    return np.asarray(known[is_known] - np.asarray(rows[EVENT], dtype=np.int64)[is_known], dtype=np.int64)


def _known_at(rows: Mapping[str, Any], part: LogPartition, seq: Int64Array) -> Int64Array:
    recorded = np.asarray(rows[KNOWN_AT], dtype=np.int64)
    return np.where(recorded == NEVER, find_applied_times(part.ends, seq), recorded)


def latest_event_us(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> int | None:
    """Return the latest event time of the accepted rows in some log files, UTC microseconds; None: no rows.

    Raises:
        StoreError: a file is corrupt.
    """
    if not files:
        return None
    query = f"SELECT max({EVENT}) FROM read_parquet(?, union_by_name = true) WHERE {REJECT} IS NULL"
    with translate_query_errors("log"):
        ((latest,),) = connection.execute(query, [list(files)]).fetchall()
    return None if latest is None else int(latest)


def read_rows_at(
    connection: duckdb.DuckDBPyConnection, state: ProjectState, partition: str, positions: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Return the rows of a log partition at a few positions; a row whose segment was deleted is missing.

    Row groups without the positions are skipped, and of the others only the columns of the found rows are read.

    Raises:
        StoreError: a file is missing or corrupt.
    """
    register_reader(state.database)
    log = PartitionLog(state, partition)
    segments = {segment.first: segment for at in positions for segment in log.segments(at, at)}
    if not segments:
        return {}
    places = ", ".join(str(int(at)) for at in positions)
    query = f"SELECT * FROM read_parquet(?, union_by_name = true) WHERE {SEQ} IN ({places})"
    with translate_query_errors(f"log partition {partition!r}"):
        files = log.local_files(list(segments.values()))
        rows = connection.sql(query, params=[files]).to_arrow_table().to_pylist()
    return {row[SEQ]: row for row in rows}
