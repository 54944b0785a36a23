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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array, typed_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.reads import build_window_read
from skewless.contract.request import ParsedRows
from skewless.contract.rows import ViewRead
from skewless.contract.status import Int64Array
from skewless.contract.window_events import EventSelector
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.sketch import Hashes
from skewless.contract.windows.state_layout import EventOrigins, StateLayout, partition_number
from skewless.contract.windows.tiles import AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.log.catalog import log_ends
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.log_parts import read_log_partitions
from skewless.infra.reads.offline.window_join import WindowJoin
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.state_reader import StateProgress, StateReader
from skewless_decisions.pending_events import KeyIndex, PendingEvents

if TYPE_CHECKING:
    import duckdb

_UNKNOWN_GENERATION = 0
_Pairs = tuple[Int64Array, Int64Array]


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


class _FurtherEvents(NamedTuple):
    """Events that rows count in addition to their states: row, origin, states and hashes of each."""

    row: Int64Array
    origin: EventOrigins
    words: Int64Array
    hashes: Hashes

    @classmethod
    def concatenate(cls, parts: Sequence[_FurtherEvents]) -> _FurtherEvents:
        rows, origins, words, hashes = zip(*parts, strict=True)
        origin = EventOrigins.concatenate(origins)
        return cls(np.concatenate(rows), origin, np.concatenate(words, axis=1), np.concatenate(hashes, axis=1))


@dataclass(frozen=True, kw_only=True)
class StoredStates:
    """The states of one view for the rows of n decisions, as the store has them.

    Args:
        reader: of the view.
        names: keys of the states; None: the row has no complete key.
        states: the states; None: they could not be read.
        marker: of the events' partition, read with the states; None: unknown.
    """

    reader: StateReader
    names: Sequence[bytes | None]
    states: Sequence[bytes | None] | None
    marker: Marker | None

    def are_behind(self, pending: PendingEvents) -> bool:
        """Return whether the states may lack events from before the pending ones."""
        if self.reader.keys is None or self.states is None or self.marker is None:
            return True
        return self.marker.position < pending.first - 1

    @property
    def structure(self) -> object:
        """Return a key that is equal for views that can be read together."""
        return self.reader.view.structure if self.reader.windows.is_mergeable else self.reader.view.hash


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
        self._codecs: dict[tuple[str, ...], TileCodec] = {}

    def read(
        self, stored: Sequence[StoredStates], rows: DecidedRows, pending: PendingEvents
    ) -> list[tuple[ViewRead, StateProgress]]:
        """Return the read of each view for each row as of just before its event.

        Args:
            stored: of each view, with one state for each row.
            rows: the rows.
            pending: the events of the partition, at least from the position behind the markers up to each row's.

        Raises:
            StoreError: the log cannot be read.
        """
        reads: dict[int, tuple[ViewRead, StateProgress]] = {}
        groups: dict[object, list[int]] = {}
        for place, each in enumerate(stored):
            if each.are_behind(pending):
                reads[place] = self._read_log(each.reader.view, rows, np.arange(len(rows.t)), pending)
            else:
                groups.setdefault(each.structure, []).append(place)
        # Together, because the number of numpy's calls decides about the time for a few rows.
        for places in groups.values():
            parts = self._read_states([stored[place] for place in places], rows, pending)
            reads |= zip(places, parts, strict=True)
        return [reads[place] for place in range(len(stored))]

    def _read_states(
        self, group: Sequence[StoredStates], rows: DecidedRows, pending: PendingEvents
    ) -> Iterator[tuple[ViewRead, StateProgress]]:
        """Yield the reads of views of one structure; their rows follow each other in all arrays, view by view."""
        n = len(rows.t)
        base, states = _find_entities(group)
        tiles, is_valid = self._codec([each.reader.view for each in group]).unpack_sound(states)
        t, before = np.tile(rows.t, len(group)), np.tile(rows.before, len(group))
        last = np.full(tiles.n, -1, dtype=np.int64)
        own = tiles.slots.partition == pending.number
        last[tiles.slots.entity[own]] = tiles.slots.seq[own]
        slot = last[base]
        is_exact = is_valid[base] & (slot < before) & (tiles.m[base] <= t)
        further = self._find_further(group, slot, np.where(is_exact, before, -1), pending)
        slots = _slots_of(tiles.slots, base, pending.number, before)
        windows = group[0].reader.windows
        if windows.is_mergeable:
            features = windows.features_with(tiles, base, t, further.row, further.origin.ts, further.words)
        else:
            layout = StateLayout(group[0].reader.view)
            added = Tiles.from_events(layout, len(base), *further)
            features = windows.features(tiles.take(base).extend(layout, added), t)
        for i, each in enumerate(group):
            part = slice(i * n, (i + 1) * n)
            own_slots = slots.of_entities(part.start, part.stop)
            exact = is_exact[part]
            read, progress = each.reader.build_read(
                each.names, features[part], tiles.m[base[part]], exact, rows.t, int(rows.t.max()), own_slots
            )
            if not exact.all():
                missing = np.flatnonzero(~exact)
                logged, logged_progress = self._read_log(each.reader.view, rows, missing, pending)
                read = _merge(each.reader.view, read, logged, missing)
                progress = _merge_progress(progress, logged_progress, missing)
            yield read, progress

    def _find_further(
        self, group: Sequence[StoredStates], slot: Int64Array, before: Int64Array, pending: PendingEvents
    ) -> _FurtherEvents:
        """Return the events that count for rows and that their states lack.

        Args:
            slot: the last position in the state of each row, shape ``(n_views * n,)``.
            before: the first position that does not count for it.
        """
        parts: list[_FurtherEvents] = []
        for i, each in enumerate(group):
            view, n, keys = each.reader.view, len(each.names), each.reader.keys
            if keys is None:
                raise TypeError(view.name)  # its states are read from the log
            if view.hash not in self._selectors:
                self._selectors[view.hash] = EventSelector(view)
            events, index = pending.of_view(view, self._selectors[view.hash], keys)
            part = slice(i * n, (i + 1) * n)
            row, event = _find_pairs(each.names, index, events.origin.seq, slot[part], before[part])
            parts.append(
                _FurtherEvents(
                    row + part.start, events.origin.take(event), events.words[:, event], events.hashes[:, event]
                )
            )
        return parts[0] if len(parts) == 1 else _FurtherEvents.concatenate(parts)

    def _codec(self, views: Sequence[WindowView]) -> TileCodec:
        names = tuple(view.hash for view in views)
        if names not in self._codecs:
            self._codecs[names] = TileCodec(*views)
        return self._codecs[names]

    def _read_log(
        self, view: WindowView, rows: DecidedRows, numbers: Int64Array, pending: PendingEvents
    ) -> tuple[ViewRead, StateProgress]:
        """Return the read of some rows from the log."""
        pending.ensure_logged()
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


def _find_entities(group: Sequence[StoredStates]) -> tuple[Int64Array, list[bytes | None]]:
    """Return the entity of each row of each view, and the states of the entities, equally many of each view.

    Many rows are about few entities: each state is unpacked once.
    """
    distinct = [dict(zip(each.names, each.states or (), strict=True)) for each in group]
    size = max(map(len, distinct))
    base: list[int] = []
    states: list[bytes | None] = []
    for i, (each, by_name) in enumerate(zip(group, distinct, strict=True)):
        entities = {name: i * size + number for number, name in enumerate(by_name)}
        base += map(entities.__getitem__, each.names)
        states += [*by_name.values(), *[None] * (size - len(by_name))]
    return np.array(base, dtype=np.int64), states


def _find_pairs(
    names: Sequence[bytes | None], index: KeyIndex, seq: Int64Array, slot: Int64Array, before: Int64Array
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


def _merge(view: WindowView, read: ViewRead, logged: ViewRead, rows: Int64Array) -> ViewRead:
    """Return a read of a view's states whose rows at some indices are those of a read of the log."""
    known_to, has_row, features = read.versions.event_ts.copy(), read.has_row.copy(), np.array(read.block)
    known_to[rows], has_row[rows], features[rows] = logged.versions.event_ts, logged.has_row, np.array(logged.block)
    unavailable = np.zeros(len(has_row), dtype=np.bool_) if read.unavailable is None else read.unavailable.copy()
    unavailable[rows] = False
    return replace(build_window_read(view, features, known_to, has_row), unavailable=unavailable)


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
