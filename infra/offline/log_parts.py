"""The logs of a source as those read them who compute windows: when their events happened, were applied and known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skewless.contract.errors import StoreError
from skewless.contract.status import Int64Array
from skewless.contract.windows.state_layout import NEVER
from skewless.infra.log.accepted import EVENT, INGEST, REJECT, SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.event_rows import DECLARED
from skewless.infra.log.partitions import log_partitions
from skewless.infra.offline.window_events import LogPart, columns_of, ended_at

if TYPE_CHECKING:
    import duckdb

LATE_US = 10_000_000
_MOST_EVENTS = 1_000_000


def log_parts(log_root: Path, source: str) -> list[LogPart]:
    """Return the log partitions of a source, sorted by name."""
    parts = []
    for partition in log_partitions(log_root, source):
        log = EventLog(log_root, partition)
        ends = log.ends()  # before the files: what is not here any more then stands in them
        parts.append(LogPart(partition=partition, files=log.files(), ends=ends))
    return parts


@dataclass(frozen=True, kw_only=True)
class Batches:
    """When positions of one partition were taken, and when their applying had ended; microseconds.

    Args:
        last: growing; each entry is about the positions behind those of the one before.
        taken: not after those that follow.
        ended: not before those that come earlier; int64 maximum: not yet. Of history, when it was taken.
    """

    last: Int64Array
    taken: Int64Array
    ended: Int64Array

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection, part: LogPart) -> Batches:
        """Return the batches of a partition."""
        if not part.files:
            nothing = np.empty(0, dtype=np.int64)
            return cls(last=nothing, taken=nothing, ended=nothing)
        files = list(part.files)
        there = columns_of(connection, files)
        known = KNOWN_AT if KNOWN_AT in there else "CAST(NULL AS BIGINT)"
        if DECLARED in there:
            # History was not applied when it counts as known, but no states were read before they had it.
            known = f"CASE WHEN {DECLARED} THEN {INGEST} ELSE {known} END"
        rows = connection.sql(
            f"SELECT max({SEQ}) AS last, {INGEST}, {KNOWN_AT} FROM (SELECT {SEQ}, {INGEST}, {known} AS {KNOWN_AT}"
            f" FROM read_parquet(?, union_by_name=true)) GROUP BY {INGEST}, {KNOWN_AT} ORDER BY last",
            params=[files],
        ).fetchnumpy()
        last = np.asarray(rows["last"], dtype=np.int64)
        ended = _known_at(rows, part, last)
        taken = np.minimum.accumulate(np.asarray(rows[INGEST], dtype=np.int64)[::-1])[::-1]
        return cls(last=last, taken=taken, ended=np.maximum.accumulate(ended))

    def surely(self, moment: Int64Array) -> Int64Array:
        """Return the last position of which all before and itself had been applied before a moment; -1: none."""
        return self._last(np.searchsorted(self.ended, moment, side="left"))

    def possibly(self, moment: Int64Array) -> Int64Array:
        """Return the last position that may have been applied by a moment; -1: none."""
        return self._last(np.searchsorted(self.taken, moment, side="right"))

    def _last(self, count: Int64Array) -> Int64Array:
        return np.asarray(np.append(self.last, -1)[np.asarray(count) - 1], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Delays:
    """How late events became known; of a log with more than a million events, every n-th counts.

    Args:
        events: those whose time of becoming known is recorded.
        late: the share of them that became known more than ten seconds after they happened; None without events.
        p50_s, p99_s: half of them, and 99 in 100, were known that many seconds after they happened, or sooner.
    """

    events: int
    late: float | None
    p50_s: float | None
    p99_s: float | None


def event_delays(connection: duckdb.DuckDBPyConnection, parts: Sequence[LogPart]) -> Delays:
    """Return the delays of the accepted events of a source."""
    rows = [_rows(connection, part) for part in parts if part.files]
    stride = 1 + sum(rows) // _MOST_EVENTS
    found = [_delays(connection, part, stride) for part in parts if part.files]
    delays = np.sort(np.concatenate([*found, np.empty(0, dtype=np.int64)]))
    n = len(delays)
    if not n:
        return Delays(events=0, late=None, p50_s=None, p99_s=None)
    p50, p99 = (float(delays[max(0, -(-n * share // 100) - 1)]) / 1e6 for share in (50, 99))
    return Delays(events=n, late=float((delays > LATE_US).mean()), p50_s=p50, p99_s=p99)


def _rows(connection: duckdb.DuckDBPyConnection, part: LogPart) -> int:
    found = connection.execute("SELECT count(*) FROM read_parquet(?)", [list(part.files)]).fetchall()
    return int(found[0][0])


def _delays(connection: duckdb.DuckDBPyConnection, part: LogPart, stride: int) -> Int64Array:
    """Return how long after they happened the events of a partition were known, microseconds."""
    files = list(part.files)
    known_sql = KNOWN_AT if KNOWN_AT in columns_of(connection, files) else f"CAST(NULL AS BIGINT) AS {KNOWN_AT}"
    query = (
        f"SELECT {SEQ}, {EVENT}, {known_sql} FROM read_parquet(?, union_by_name=true)"
        f" WHERE {REJECT} IS NULL AND {SEQ} % {stride} = 0"
    )
    rows = connection.sql(query, params=[files]).fetchnumpy()
    known = _known_at(rows, part, np.asarray(rows[SEQ], dtype=np.int64))
    told = known != NEVER
    return np.asarray(known[told] - np.asarray(rows[EVENT], dtype=np.int64)[told], dtype=np.int64)


def _known_at(rows: Mapping[str, Any], part: LogPart, seq: Int64Array) -> Int64Array:
    recorded = np.ma.filled(rows[KNOWN_AT], NEVER).astype(np.int64)
    return np.where(recorded == NEVER, ended_at(part.ends, seq), recorded)


def newest_event_us(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> int | None:
    """Return the latest event time of the accepted rows of some log files, UTC microseconds; None: there are none.

    Raises:
        StoreError: a file is damaged.
    """
    import duckdb  # noqa: PLC0415 - the status of a project without events does without

    if not files:
        return None
    query = f"SELECT max({EVENT}) FROM read_parquet(?, union_by_name = true) WHERE {REJECT} IS NULL"
    try:
        ((newest,),) = connection.execute(query, [list(files)]).fetchall()
    except duckdb.Error as error:
        raise StoreError("log", f"cannot be read: {error}", fix="restore the damaged file") from error
    return None if newest is None else int(newest)
