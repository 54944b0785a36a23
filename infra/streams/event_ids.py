"""Deduplicates events by id across all partitions of a source, streamed or imported (SEMANTICS 4.4).

A process holds a lock of the source from the comparison of ids to the append. Before, it loads the ids that other
processes have accepted from the logs, which all processes share. The append fails if another process has accepted
events since, because a process that was cut off may have lost the lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.errors import ConflictError
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.view import EventSource
from skewless.infra.log.catalog import Segment
from skewless.infra.log.event_rows import EVENT_ID
from skewless.infra.log.log_columns import INGEST, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import log_ends
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.streams.id_index import Digests, IdIndex, digest_ids, mark_first

_EVER = -(2**63)


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The rows that the log has accepted.

    Args:
        rows: new rows, accepted or rejected, in order.
        span: their file; None: no row was new.
    """

    rows: pa.Table
    span: Segment | None


class EventIds:
    """The ids of one source as one thread knows them; a source without an ``id_column`` accepts all events.

    Args:
        source: of the events.
        state: of the project.
        horizon_us: how long an id is remembered after its event was accepted, microseconds; None: forever.
        start_positions: per log partition, the position from which ids are loaded; other partitions from the beginning.
            None: all ids within the horizon.
    """

    def __init__(
        self,
        source: EventSource,
        state: ProjectState,
        horizon_us: int | None,
        start_positions: Mapping[str, int] | None = None,
    ) -> None:
        self._source = source
        self._state = state
        self._horizon_us = horizon_us
        self._index = IdIndex(horizon_us)
        self._start_positions = dict(start_positions or {})
        self._next = dict(self._start_positions)

    def accept(
        self,
        log: PartitionLog,
        rows: pa.Table,
        *,
        at: int | None,
        now_us: int,
        skip_remembering: BoolArray | None = None,
    ) -> Acceptance:
        """Append rows whose ids are new, and remember the ids; a rejected row does not claim its id.

        Args:
            log: a partition of the source.
            rows: in the schema of ``event_schema``.
            at: as in ``PartitionLog.append``.
            now_us: time of acceptance.
            skip_remembering: rows whose ids cannot occur again, so that they are not remembered.

        Raises:
            ConflictError: another process wrote to the partition, or to the source although this process held the
                lock; a repeated call loads its ids.
            StoreError: the disk failed; nothing was accepted.
        """
        if self._source.id_column is None:
            return Acceptance(rows=rows, span=log.append(rows, at=at) if rows.num_rows else None)
        with self._state.database.hold_lock(f"ids {self._source.name}"):
            ends = self._read_ends()
            if ends != self._next:
                self._load_new_ids(ends, now_us)
            if at is not None:
                # A worker that lost its partition would see its successor's rows as duplicates.
                log.check_end(at)
            new, claimed_digests = self._select_new(rows, now_us, skip_remembering)
            if not new.num_rows:
                return Acceptance(rows=new, span=None)
            span = log.append(new, at=at, check=self._check_ends)
            self._index.add(claimed_digests, now_us)
            self._next[log.partition] = span.last + 1
        return Acceptance(rows=new, span=span)

    def set_source(self, source: EventSource) -> None:
        """Use another definition of the source from now on: another id column or horizon."""
        if (source.id_column, source.dedupe_us) != (self._source.id_column, self._source.dedupe_us):
            self._horizon_us = source.dedupe_us
            self._reset()
        self._source = source

    def find_known(self, rows: pa.Table, now_us: int) -> BoolArray:
        """Return which rows repeat a known id or the id of an earlier row; remembers nothing."""
        return self._find_repeated(rows, now_us)[0]

    def remember(self, rows: pa.Table, now_us: int) -> None:
        """Remember the ids of accepted rows that are not in a log."""
        rows_with_id = rows.filter(_has_id(rows))
        self._index.add(digest_ids(rows_with_id[EVENT_ID].to_pylist()), now_us)

    def _reset(self) -> None:
        self._index, self._next = IdIndex(self._horizon_us), dict(self._start_positions)

    def _read_ends(self) -> dict[str, int]:
        """Return the next position of each log partition of the source that has rows."""
        return {name: end + 1 for name, end in log_ends(self._state, self._source.name).items() if end >= 0}

    def _check_ends(self) -> None:
        """Check, as the fence of an append, that no process has accepted events since the ids were compared."""
        if self._read_ends() != self._next:
            raise ConflictError(
                f"event source {self._source.name!r}",
                "was written by another process, which had the lock",
                fix="run it again; stream workers do so automatically",
            )

    def _select_new(self, rows: pa.Table, now_us: int, skip_remembering: BoolArray | None) -> tuple[pa.Table, Digests]:
        repeated, indices, digests = self._find_repeated(rows, now_us)
        is_claimed = ~repeated[indices] if skip_remembering is None else ~(repeated | skip_remembering)[indices]
        return (rows.filter(pa.array(~repeated)) if repeated.any() else rows), digests[:, is_claimed]

    def _find_repeated(self, rows: pa.Table, now_us: int) -> tuple[BoolArray, Int64Array, Digests]:
        """Return which rows repeat an id, which rows have one, and the digests of those ids."""
        indices = np.flatnonzero(_has_id(rows).to_numpy(zero_copy_only=False))
        digests = digest_ids(rows[EVENT_ID].take(pa.array(indices)).to_pylist())
        repeated = np.zeros(rows.num_rows, dtype=np.bool_)
        repeated[indices] = self._index.find_known(digests, now_us) | ~mark_first(digests)
        return repeated, indices, digests

    def _load_new_ids(self, ends: dict[str, int], now_us: int) -> None:
        """Load the ids that any process has accepted since the last call."""
        if any(ends.get(name, 0) < end for name, end in self._next.items()):
            self._reset()  # a log is an older copy: lost rows must be accepted again
        since_us = _EVER if self._horizon_us is None else now_us - self._horizon_us
        for name, end in ends.items():
            log, first = PartitionLog(self._state, name), self._next.get(name, 0)
            for span in _list_recent_files(log, first, end, since_us):
                for rows in log.read(max(span.first, first), span.last, self._columns()):
                    new_rows = self._select_with_ids(rows.filter(pc.greater_equal(rows[INGEST], since_us)))
                    self._index.add(digest_ids(new_rows[EVENT_ID].to_pylist()), new_rows[INGEST].to_numpy())
        self._next = ends

    def _columns(self) -> list[str]:
        column = self._source.id_column
        return [INGEST, EVENT_ID, REJECT, *([column] if column else [])]

    def _select_with_ids(self, rows: pa.Table) -> pa.Table:
        """Return accepted rows with an id, also rows from before its column was declared as the id."""
        ids = pc.coalesce(rows[self._source.id_column].cast(pa.string()), rows[EVENT_ID].cast(pa.string()))
        rows = rows.select([INGEST, REJECT]).append_column(EVENT_ID, ids)
        return rows.filter(_has_id(rows))


def _has_id(rows: pa.Table) -> pa.ChunkedArray:
    return pc.and_(rows[REJECT].is_null(), rows[EVENT_ID].is_valid())


def _list_recent_files(log: PartitionLog, first: int, end: int, since_us: int) -> list[Segment]:
    """Return the segments from a position on with rows accepted since a time, oldest first."""
    return [segment for segment in log.segments(first, end - 1) if segment.at_us >= since_us]
