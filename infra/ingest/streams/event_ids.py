"""Deduplicates events by id across all partitions of a source, streamed or imported (SEMANTICS 4.4).

A process holds a lock of the source from the comparison of ids to the append. Before, it loads the ids that other
processes have accepted from the logs, which all processes share. The append fails if another process has accepted
events since, because a process that was cut off may have lost the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.errors import ConflictError
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.view import EventSource
from skewless.infra.log.catalog import End, Segment, log_ends
from skewless.infra.log.log_columns import EVENT_ID, INGEST, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState

Digests = npt.NDArray[np.uint64]  # shape (2, n): the two halves of n digests

# Two runs are merged when their sizes are similar, so that an id is copied a logarithmic number of times.
_SIZE_FACTOR = 2
_EVER = -(2**63)


@dataclass(frozen=True, kw_only=True)
class _SortedRun:
    """Distinct digests, sorted by their first halves, and the times of acceptance of their ids, microseconds."""

    digests: Digests
    accepted: Int64Array

    def __len__(self) -> int:
        return len(self.accepted)

    @classmethod
    def of(cls, digests: Digests, accepted: Int64Array) -> _SortedRun:
        # By digest, then by time: the last of equal digests is the latest acceptance.
        order = np.lexsort((accepted, digests[1], digests[0]))
        digests, accepted = digests[:, order], accepted[order]
        last = np.append((digests[:, 1:] != digests[:, :-1]).any(axis=0), [True] * bool(len(accepted)))
        return cls(digests=digests[:, last], accepted=accepted[last])

    def select(self, rows: BoolArray) -> _SortedRun:
        return self if rows.all() else _SortedRun(digests=self.digests[:, rows], accepted=self.accepted[rows])

    def indices(self, digests: Digests) -> Int64Array:
        """Return the indices of digests, which must be sorted by their first halves; -1: not in this run."""
        indices = np.full(digests.shape[1], -1, dtype=np.int64)
        at = np.searchsorted(self.digests[0], digests[0])
        remaining = np.flatnonzero(at < len(self))
        while len(remaining):
            remaining = remaining[self.digests[0, at[remaining]] == digests[0, remaining]]
            same = self.digests[1, at[remaining]] == digests[1, remaining]
            indices[remaining[same]] = at[remaining[same]]
            remaining = remaining[~same]  # another digest with the same first half: continue with the next one
            at[remaining] += 1
            remaining = remaining[at[remaining] < len(self)]
        return indices


class IdIndex:
    """The ids that were accepted within a horizon.

    Memory: 24 bytes per id, for at most twice the ids of one horizon; a merge needs the same again.

    Args:
        horizon_us: how long an id is remembered after its event was accepted, microseconds; None: forever.
    """

    def __init__(self, horizon_us: int | None) -> None:
        self._horizon_us = horizon_us
        self._runs: list[_SortedRun] = []

    def __len__(self) -> int:
        """Return the number of stored ids, some of which may be past the horizon."""
        return sum(map(len, self._runs))

    def add(self, digests: Digests, accepted_us: Int64Array | int) -> None:
        """Add accepted ids; an id that is past the horizon is added again.

        >>> index, a = IdIndex(10), digest_ids(["a"])
        >>> index.add(a, 0)
        >>> [index.find_known(a, now).tolist() for now in (10, 11)]
        [[True], [False]]
        >>> index.add(a, 11)
        >>> index.find_known(a, 21).tolist()
        [True]
        """
        if not digests.shape[1]:
            return
        times = np.broadcast_to(np.asarray(accepted_us, dtype=np.int64), digests.shape[1:])
        self._runs.append(_SortedRun.of(digests, times))
        since_us = self._horizon_start(int(times.max()))
        while len(self._runs) > 1 and len(self._runs[-2]) <= _SIZE_FACTOR * len(self._runs[-1]):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(_merge(*(run.select(run.accepted >= since_us) for run in (older, newer))))

    def find_known(self, digests: Digests, now_us: int) -> BoolArray:
        """Return which ids were accepted within the horizon before ``now_us``, inclusive; shape ``(n,)``."""
        is_known = np.zeros(digests.shape[1], dtype=np.bool_)
        order = np.argsort(digests[0])  # sorted look-ups reuse cache lines
        ordered = digests[:, order]
        for run in self._runs:
            indices = run.indices(ordered)
            is_known[order[indices >= 0]] |= run.accepted[indices[indices >= 0]] >= self._horizon_start(now_us)
        return is_known

    def _horizon_start(self, now_us: int) -> int:
        return -(2**63) if self._horizon_us is None else now_us - self._horizon_us


def digest_ids(ids: Iterable[str]) -> Digests:
    """Return 128-bit digests of ids; collisions do not occur in practice."""
    joined = b"".join(blake2b(name.encode(), digest_size=16).digest() for name in ids)
    return np.ascontiguousarray(np.frombuffer(joined, dtype="<u8").reshape(-1, 2).T)


def mark_first(digests: Digests) -> BoolArray:
    """Return which digests are the first occurrence among the given ones.

    >>> mark_first(digest_ids(["b", "a", "b"])).tolist()
    [True, True, False]
    """
    order = np.lexsort((digests[1], digests[0]))
    ordered = digests[:, order]
    first = np.ones(len(order), dtype=np.bool_)
    first[order[1:]] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    return first


def _merge(older: _SortedRun, newer: _SortedRun) -> _SortedRun:
    """Merge two runs; for an id in both, the newer acceptance counts."""
    duplicate_indices = older.indices(newer.digests)
    is_kept = np.ones(len(older), dtype=np.bool_)
    is_kept[duplicate_indices[duplicate_indices >= 0]] = False
    older = older.select(is_kept)
    place = np.searchsorted(older.digests[0], newer.digests[0]) + np.arange(len(newer))
    is_older = np.ones(len(older) + len(newer), dtype=np.bool_)
    is_older[place] = False
    result = _SortedRun(digests=np.empty((2, len(is_older)), np.uint64), accepted=np.empty(len(is_older), np.int64))
    result.digests[:, is_older], result.digests[:, place] = older.digests, newer.digests
    result.accepted[is_older], result.accepted[place] = older.accepted, newer.accepted
    return result


@dataclass(eq=False)
class EventIds:
    """The ids of one source as one thread knows them; a source without an ``id_column`` accepts all events.

    Args:
        source: of the events.
        state: of the project.
        horizon_us: how long an id is remembered after its event was accepted, microseconds; None: forever.
        start_positions: per log partition, the position from which ids are loaded; other partitions from the beginning.
    """

    source: EventSource
    state: ProjectState
    horizon_us: int | None
    start_positions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin without ids."""
        self._reset()

    def accept(
        self,
        log: PartitionLog,
        rows: pa.Table,
        *,
        at: int | None,
        now_us: int,
        skip_remembering: BoolArray | None = None,
        end: End | None = None,
        on_new: Callable[[pa.Table], None] = lambda _rows: None,
    ) -> tuple[pa.Table, Segment | None]:
        """Append rows whose ids are new, and remember the ids; a rejected row does not claim its id.

        Args:
            log: a partition of the source.
            rows: in the schema of ``event_schema``.
            at: as in ``PartitionLog.append``.
            now_us: time of acceptance.
            skip_remembering: rows whose ids cannot occur again, so that they are not remembered.
            end: as in ``PartitionLog.append``.
            on_new: called with the new rows, perhaps none, before they are appended.

        Returns:
            The new rows, accepted or rejected, in order, and their file; None: no row was new.

        Raises:
            ConflictError: another process wrote to the partition, or to the source although this process held the
                lock; a repeated call loads its ids.
            StoreError: the disk failed; nothing was accepted.
        """
        if self.source.id_column is None:
            on_new(rows)
            return rows, log.append(rows, at=at, end=end) if rows.num_rows else None
        with self.state.database.hold_lock(f"ids {self.source.name}"):
            ends = self._read_ends()
            if ends != self._next:
                self._load_new_ids(ends, now_us)
            if at is not None:
                # A worker that lost its partition would see its successor's rows as duplicates.
                log.check_end(at)
            new, claimed_digests = self._select_new(rows, now_us, skip_remembering)
            on_new(new)
            if not new.num_rows:
                return new, None
            span = log.append(new, at=at, check=self._check_ends, end=end)
            self._index.add(claimed_digests, now_us)
            self._next[log.partition] = span.last + 1
        return new, span

    def set_source(self, source: EventSource) -> None:
        """Use another definition of the source from now on: another id column or horizon."""
        if (source.id_column, source.dedupe_us) != (self.source.id_column, self.source.dedupe_us):
            self.horizon_us = source.dedupe_us
            self._reset()
        self.source = source

    def preview(self, rows: pa.Table, now_us: int) -> pa.Table:
        """Return the new rows as ``accept`` would, and remember their ids without a log."""
        if self.source.id_column is None:
            return rows
        new, claimed_digests = self._select_new(rows, now_us, None)
        self._index.add(claimed_digests, now_us)
        return new

    def _reset(self) -> None:
        self._index, self._next = IdIndex(self.horizon_us), dict(self.start_positions)

    def _read_ends(self) -> dict[str, int]:
        """Return the next position of each log partition of the source that has rows."""
        return {name: end + 1 for name, end in log_ends(self.state, self.source.name).items() if end >= 0}

    def _check_ends(self) -> None:
        """Check, as the fence of an append, that no process has accepted events since the ids were compared."""
        if self._read_ends() != self._next:
            raise ConflictError(
                f"event source {self.source.name!r}",
                "was written by another process, which had the lock",
                fix="run it again; stream workers do so automatically",
            )

    def _select_new(self, rows: pa.Table, now_us: int, skip_remembering: BoolArray | None) -> tuple[pa.Table, Digests]:
        """Return the rows that repeat no id, and the digests of the ids to remember."""
        indices = np.flatnonzero(_has_id(rows).to_numpy(zero_copy_only=False))
        digests = digest_ids(rows[EVENT_ID].take(pa.array(indices)).to_pylist())
        repeated = np.zeros(rows.num_rows, dtype=np.bool_)
        repeated[indices] = self._index.find_known(digests, now_us) | ~mark_first(digests)
        is_claimed = ~repeated[indices] if skip_remembering is None else ~(repeated | skip_remembering)[indices]
        return (rows.filter(pa.array(~repeated)) if repeated.any() else rows), digests[:, is_claimed]

    def _load_new_ids(self, ends: dict[str, int], now_us: int) -> None:
        """Load the ids that any process has accepted since the last call."""
        if any(ends.get(name, 0) < end for name, end in self._next.items()):
            self._reset()  # a log is an older copy: lost rows must be accepted again
        since_us = _EVER if self.horizon_us is None else now_us - self.horizon_us
        columns = [INGEST, EVENT_ID, REJECT, str(self.source.id_column)]
        for name, end in ends.items():
            log, first = PartitionLog(self.state, name), self._next.get(name, 0)
            for span in [item for item in log.segments(first, end - 1) if item.at_us >= since_us]:
                for rows in log.read(max(span.first, first), span.last, columns):
                    new_rows = self._select_with_ids(rows.filter(pc.greater_equal(rows[INGEST], since_us)))
                    self._index.add(digest_ids(new_rows[EVENT_ID].to_pylist()), new_rows[INGEST].to_numpy())
        self._next = ends

    def _select_with_ids(self, rows: pa.Table) -> pa.Table:
        """Return accepted rows with an id, also rows from before its column was declared as the id."""
        ids = pc.coalesce(rows[self.source.id_column].cast(pa.string()), rows[EVENT_ID].cast(pa.string()))
        rows = rows.select([INGEST, REJECT]).append_column(EVENT_ID, ids)
        return rows.filter(_has_id(rows))


def _has_id(rows: pa.Table) -> pa.ChunkedArray:
    return pc.and_(rows[REJECT].is_null(), rows[EVENT_ID].is_valid())
