"""Windows as of just before an event: exactly the log rows before it, whatever the states include (SEMANTICS 9.2).

A state in the online store includes the rows of a partition up to some position. Events that were just accepted, and
are not applied yet, are added in memory, so that events of one entity in one batch need no further read::

    positions      ... a  b  c | d  e  f        the batch: d to f, of one entity
    state               [a b c]
    before e            [a b c]+ d
    before f            [a b c]+ d  e

Where that is not exact, the rows of the log decide: the state already includes the event or a later one, it is rolled
up beyond the time of the event, or the store has lost writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array, typed_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.keys import KeyCodec, window_marker
from skewless.contract.request import ParsedRows
from skewless.contract.rows import ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.window_events import EventSelector, ViewEvents
from skewless.contract.windows.state_layout import EventOrigins, StateLayout, partition_number
from skewless.contract.windows.tiles import AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.log.log_columns import EVENT, REJECT, SEQ
from skewless.infra.log.partitions import log_ends
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.log_parts import read_log_partitions
from skewless.infra.offline.window_join import WindowJoin
from skewless.infra.online.port import Marker
from skewless.infra.online.state_reader import StateProgress, StateReader
from skewless.infra.storage.project_state import ProjectState

if TYPE_CHECKING:
    import duckdb

_UNKNOWN_GENERATION = 0
_Pairs = tuple[Int64Array, Int64Array]


class PendingEvents:
    """Consecutive rows of a log partition that the states may lack.

    Args:
        partition: name of the log partition.
        rows: accepted and rejected ones, with their positions.
    """

    def __init__(self, partition: str, rows: pa.Table) -> None:
        self.partition = partition
        self.number = int(partition_number(partition))
        self.first: int = rows[SEQ][0].as_py()
        self._rows = rows.filter(rows[REJECT].is_null()) if rows[REJECT].null_count < rows.num_rows else rows
        self._views: dict[str, tuple[ViewEvents, dict[bytes, list[int]]]] = {}
        self._selected: dict[str, ViewEvents] = {}

    @property
    def selected(self) -> dict[str, ViewEvents]:
        """The events that count in each view that was read, by the hash of the view."""
        return dict(self._selected)

    def of_view(self, view: WindowView, selector: EventSelector, keys: KeyCodec) -> tuple[ViewEvents, _KeyIndex]:
        """Return the events that count in a view, and their indices by the key of the entity's state."""
        name = f"{keys.prefix!r}"
        if name not in self._views:
            origin = EventOrigins(
                ts=self._rows[EVENT].to_numpy(),
                partition=np.full(self._rows.num_rows, self.number),
                seq=self._rows[SEQ].to_numpy(),
            )
            # Another generation of a view has the same events under other keys.
            events = self._selected.get(view.hash) or selector.select(self._rows, origin)
            self._selected[view.hash] = events
            index: dict[bytes, list[int]] = {}
            if len(events.rows):
                columns = {key.name: events.keys[key.name].combine_chunks() for key in view.keys}
                for i, key in enumerate(keys.pack(columns).to_pylist()):
                    index.setdefault(key, []).append(i)
            self._views[name] = events, index
        return self._views[name]


_KeyIndex = dict[bytes, list[int]]


@dataclass(frozen=True, kw_only=True)
class DecidedRows:
    """The entity rows of n decisions.

    Args:
        ask: their parsed inputs.
        t: times for which features are evaluated, microseconds, multiples of a millisecond, shape ``(n,)``.
        before: positions in the log partition; rows from there on do not count, shape ``(n,)``.
    """

    ask: ParsedRows
    t: Int64Array
    before: Int64Array

    def entities(self, view: WindowView, rows: Int64Array) -> pa.Table:
        """Return keys and times of some rows, for a read of the log."""
        keys = {key.name: self.ask.keys[key.name] for key in view.keys}
        columns = {
            key.name: typed_array([keys[key.name][i] for i in rows.tolist()], arrow_type(key.dtype))
            for key in view.keys
        }
        return pa.table({**columns, TIME: int64_array(self.t[rows])})


@dataclass(eq=False)
class ExactWindows:
    """Reads the windowed views of one source for decisions about its events; used from one thread.

    Attributes:
        recomputed: number of windows that were computed from the log so far.
    """

    state: ProjectState
    connection: duckdb.DuckDBPyConnection

    def __post_init__(self) -> None:
        """Begin without prepared views."""
        self.recomputed = 0
        self._join = WindowJoin(self.connection)
        self._selectors: dict[str, EventSelector] = {}
        self._layouts: dict[str, StateLayout] = {}

    def marker(self, project: str, reader: StateReader, partition: str) -> str:
        """Return the name of the marker that tells how far a view's states include a partition."""
        return window_marker(project, reader.view, reader.generation, partition)

    def read(
        self,
        reader: StateReader,
        names: Sequence[bytes | None],
        states: Sequence[bytes | None] | None,
        marker: Marker | None,
        rows: DecidedRows,
        pending: PendingEvents,
    ) -> tuple[ViewRead, StateProgress]:
        """Return the read of a view for each row as of just before its event.

        Args:
            reader: of the view.
            names: keys of the states.
            states: the states; None: they could not be read.
            marker: of the partition, read with the states; None: unknown.
            rows: the rows.
            pending: the events of the partition, at least from the position behind the marker up to each row's.

        Raises:
            StoreError: the log cannot be read.
        """
        everything = np.arange(len(names))
        if reader.keys is None or states is None or marker is None or marker.position < pending.first - 1:
            return self._read_log(reader.view, rows, everything, pending)
        view = reader.view
        if view.hash not in self._selectors:
            self._selectors[view.hash], self._layouts[view.hash] = EventSelector(view), StateLayout(view)
        # Many rows are about few entities: each state is unpacked once.
        entities = {name: i for i, name in enumerate(dict.fromkeys(names))}
        base = np.fromiter(map(entities.__getitem__, names), dtype=np.int64, count=len(names))
        by_name = dict(zip(names, states, strict=True))
        tiles, is_valid = reader.codec.unpack_sound([by_name[name] for name in entities])
        last = np.full(tiles.n, -1, dtype=np.int64)
        own = tiles.slots.partition == pending.number
        last[tiles.slots.entity[own]] = tiles.slots.seq[own]
        slot = last[base]
        is_exact = is_valid[base] & (slot < rows.before) & (tiles.m[base] <= rows.t)
        events, index = pending.of_view(view, self._selectors[view.hash], reader.keys)
        entity, event = _find_pairs(names, index, events.origin.seq, slot, np.where(is_exact, rows.before, -1))
        if reader.is_mergeable:
            further = entity, events.origin.ts[event], events.words[:, event]
            slots = _slots_of(tiles.slots, base, pending.number, rows.before)
            read, progress = reader.read_with(names, tiles, base, is_exact, rows.t, slots, further)
        else:
            layout, part = self._layouts[view.hash], events.take(event)
            added = Tiles.from_events(layout, len(names), entity, part.origin, part.words, part.hashes)
            every = replace(tiles.take(base), slots=_slots_of(tiles.slots, base, pending.number, rows.before))
            read, progress = reader.read(names, every.extend(layout, added), is_exact, rows.t, int(rows.t.max()))
        missing = np.flatnonzero(~is_exact)
        if not len(missing):
            return read, progress
        logged, logged_progress = self._read_log(view, rows, missing, pending)
        return _merge(read, logged, missing), _merge_progress(progress, logged_progress, missing)

    def _read_log(
        self, view: WindowView, rows: DecidedRows, numbers: Int64Array, pending: PendingEvents
    ) -> tuple[ViewRead, StateProgress]:
        """Return the read of some rows from the log."""
        self.recomputed += len(numbers)
        # Before the ends: a partition that begins in between has no end here, and is not read.
        parts = read_log_partitions(self.state, view.source)
        # Of other partitions all rows: none is missing that was applied, and each was accepted before the read's end.
        ends = log_ends(self.state, view.source)
        last = np.array([ends.get(part.partition, -1) for part in parts], dtype=np.int64)
        applied = np.tile(last, (len(numbers), 1))
        for i, part in enumerate(parts):
            if part.partition == pending.partition:
                applied[:, i] = rows.before[numbers] - 1
        read = self._join.read_applied(view, parts, rows.entities(view, numbers), applied)
        entity, part_index = np.nonzero(applied >= 0)
        partition = np.array([partition_number(part.partition) for part in parts], dtype=np.int64)[part_index]
        seq = applied[entity, part_index]
        slots = AppliedPositions(entity=entity.astype(np.int64), partition=partition, first=seq, seq=seq)
        return read, StateProgress(generation=_UNKNOWN_GENERATION, slots=slots)


def _find_pairs(
    names: Sequence[bytes | None], index: _KeyIndex, seq: Int64Array, slot: Int64Array, before: Int64Array
) -> _Pairs:
    """Return the rows and the events that count for them and that their states lack."""
    entity: list[int] = []
    event: list[int] = []
    for i, name in enumerate(names):
        events = index.get(name) if name is not None else None
        if events is not None:
            entity += [i] * len(events)
            event += events
    rows, events_of_rows = np.array(entity, dtype=np.int64), np.array(event, dtype=np.int64)
    position = seq[events_of_rows]
    counts = (position > slot[rows]) & (position < before[rows])
    return rows[counts], events_of_rows[counts]


def _slots_of(slots: AppliedPositions, base: Int64Array, own: int, before: Int64Array) -> AppliedPositions:
    """Return the positions that each row includes: of its own partition all before its event.

    Args:
        slots: of entities.
        base: entity of each row.
        own: number of the own partition.
        before: position of each row's event.
    """
    others = slots.partition != own
    entity, partition, seq = slots.entity[others], slots.partition[others], slots.seq[others]
    bounds = np.searchsorted(entity, np.arange(base.max(initial=-1) + 2))
    lengths = np.diff(bounds)[base]
    row = np.repeat(np.arange(len(base)), lengths)
    at = bounds[:-1][base][row] + np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    begun = np.flatnonzero(before > 0)
    rows = np.concatenate([row, begun])
    order = np.argsort(rows, kind="stable")
    partitions = np.concatenate([partition[at], np.full(len(begun), own)])[order]
    positions = np.concatenate([seq[at], before[begun] - 1])[order]
    return AppliedPositions(entity=rows[order], partition=partitions, first=positions, seq=positions)


def _merge(read: ViewRead, logged: ViewRead, rows: Int64Array) -> ViewRead:
    """Return a read whose rows at some indices are those of another read."""

    def put(old: BoolArray | None, new: BoolArray | None, default: bool) -> BoolArray:  # noqa: FBT001 - local
        array = np.full(len(read.has_row), default) if old is None else old.copy()
        array[rows] = default if new is None else new
        return array

    event_ts, has_row = read.versions.event_ts.copy(), read.has_row.copy()
    event_ts[rows], has_row[rows] = logged.versions.event_ts, logged.has_row
    block = np.array(read.block)
    block[rows] = np.array(logged.block)
    nulls = np.isnan(block) | ~has_row[:, None]
    names = list(read.values)
    return replace(
        read,
        has_row=has_row,
        versions=replace(read.versions, event_ts=event_ts),
        values={name: block[:, i] for i, name in enumerate(names)},
        nulls={name: nulls[:, i] for i, name in enumerate(names)},
        mask=nulls,
        block=block,
        unavailable=put(read.unavailable, logged.unavailable, default=False),
    )


def _merge_progress(progress: StateProgress, logged: StateProgress, rows: Int64Array) -> StateProgress:
    keep = ~np.isin(progress.slots.entity, rows)
    parts = [
        (progress.slots.entity[keep], progress.slots.partition[keep], progress.slots.seq[keep]),
        (rows[logged.slots.entity], logged.slots.partition, logged.slots.seq),
    ]
    entity, partition, seq = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(entity, kind="stable")
    slots = AppliedPositions(entity=entity[order], partition=partition[order], first=seq[order], seq=seq[order])
    return StateProgress(generation=progress.generation, slots=slots)
