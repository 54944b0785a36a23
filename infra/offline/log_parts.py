"""The logs of a source as those read them who compute windows, and when their batches began and ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from skewless.contract.status import Int64Array
from skewless.contract.windows.state_layout import NEVER
from skewless.infra.log.accepted import INGEST, SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.event_rows import DECLARED
from skewless.infra.log.partitions import log_partitions
from skewless.infra.offline.window_events import LogPart, ended_at


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
        there = connection.sql("SELECT * FROM read_parquet(?, union_by_name=true) LIMIT 0", params=[files]).columns
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
        recorded = np.ma.filled(rows[KNOWN_AT], NEVER).astype(np.int64)
        ended = np.where(recorded == NEVER, ended_at(part.ends, last), recorded)
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
