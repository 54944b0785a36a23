"""Applied positions of states, the events between two positions, and states rebuilt from the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.ranges import first_at_least
from skewless.contract.windows.state_layout import EventOrigins, StateLayout, partition_number
from skewless.contract.windows.tiles import AppliedPositions, Roller, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.window_events import EventChunk, LogPartition, WindowEvents, read_row_events

if TYPE_CHECKING:
    import duckdb

_TOUCHED_ROWS = 1_000_000
_REBUILT_ROWS = 250_000


def applied_matrix(slots: AppliedPositions, parts: list[LogPartition], n: int) -> tuple[Int64Array, BoolArray]:
    """Return the last applied position per row and partition, shape ``(n, n_parts)``, and which slots are known."""
    hashes = np.array([partition_number(part.partition) for part in parts], dtype=np.int64)
    order = np.argsort(hashes)
    index = np.searchsorted(hashes[order], slots.partition).clip(max=max(len(parts) - 1, 0))
    # searchsorted finds a neighbour even for a partition that the log does not have; only equal hashes are a match.
    known = hashes[order][index] == slots.partition if len(parts) else np.zeros(len(slots.entity), dtype=np.bool_)
    applied = np.full((n, len(parts)), -1, dtype=np.int64)
    applied[slots.entity[known], order[index[known]]] = slots.seq[known]
    return applied, np.asarray(known, dtype=np.bool_)


def find_touched_rows(
    connection: duckdb.DuckDBPyConnection,
    view: WindowView,
    part: LogPartition,
    entities: pa.Table,
    after: Int64Array,
    upto: Int64Array,
) -> BoolArray:
    """Return for each entity row whether an event that counts for it has a position in ``after < position <= upto``.

    Args:
        entities: key columns and ``__t``; a row with a null key has no event.
        after, upto: positions per entity row.
    """
    touched = np.zeros(entities.num_rows, dtype=np.bool_)
    if not part.files or not entities.num_rows:
        return touched
    keys = [column.name for column in view.keys]
    events = WindowEvents(connection, view, [part], {part.partition: int(upto.max(initial=-1))}, known=False)
    with closing(read_row_events(connection, events, entities, keys, _TOUCHED_ROWS)) as chunks:
        for chunk, rows, entity in chunks:
            touched[rows] |= _find_touched(chunk, entity, after[rows], upto[rows])
    return touched


def _find_touched(chunk: EventChunk, entity: Int64Array, after: Int64Array, upto: Int64Array) -> BoolArray:
    seq = chunk.events.origin.seq
    # A chunk is sorted by event time, but the question is about positions, and late events have later positions.
    order = np.lexsort((seq, chunk.entity))
    seq, bounds = seq[order], np.searchsorted(chunk.entity[order], np.arange(chunk.keys + 1))
    begin, end = bounds[entity], bounds[entity + 1]
    first = first_at_least(seq, begin, end, after + 1)
    # The appended 0 is read if `first` is after the last event; `first < end` is false then.
    return np.asarray((first < end) & (np.append(seq, 0)[first] <= upto), dtype=np.bool_)


RebuiltStates = tuple[npt.NDArray[np.intp], Tiles]


def rebuild_states(
    connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPartition], keys: pa.Table, m: int
) -> Iterator[RebuiltStates]:
    """Yield the states of entities from all events of the log, in chunks: the row numbers, and their states.

    An entity without events has an empty state. The connection must not be used meanwhile.

    Args:
        keys: key columns, without nulls and distinct.
        m: time up to which events are rolled up, microseconds.
    """
    # Without a reach, all event times are read and this time only orders the rows.
    entities = keys.append_column(TIME, int64_array(np.zeros(keys.num_rows, dtype=np.int64)))
    events = WindowEvents(connection, view, parts, {}, known=False)
    builder = StateBuilder(view, m)
    remaining = np.ones(keys.num_rows, dtype=np.bool_)
    names = [column.name for column in view.keys]
    with closing(read_row_events(connection, events, entities, names, _REBUILT_ROWS)) as chunks:
        for chunk, rows, _ in chunks:  # the rows are in the order of the chunk's keys, one row per key
            remaining[rows] = False
            tiles = builder.add(chunk, chunk.keys, chunk.entity)
            if tiles is not None:
                yield rows, tiles
    # An entity whose state should be empty must be rebuilt too: online it may hold events that the log does not have.
    if remaining.any():
        yield np.flatnonzero(remaining), builder.build_empty(int(remaining.sum()))


class StateBuilder:
    """Builds rolled-up states of one view from chunks of events."""

    def __init__(self, view: WindowView, m: int) -> None:
        self._layout, self._roller, self._m = StateLayout(view), Roller(view), m
        self._part: Tiles | None = None  # the state of a key whose events continue in the next chunk

    def add(self, chunk: EventChunk, n: int, entity: Int64Array) -> Tiles | None:
        """Return the states of the entities of a chunk; None: the next chunk has more events of the only one.

        Args:
            n: number of entities.
            entity: number of each event's entity.
        """
        events = chunk.events
        tiles = Tiles.from_events(self._layout, n, entity, events.origin, events.words, events.hashes)
        if self._part is not None:
            tiles = self._part.extend(self._layout, tiles)
        tiles = self._roller.roll(tiles, self._m)
        self._part = tiles if chunk.continues else None
        return None if chunk.continues else tiles

    def build_empty(self, n: int) -> Tiles:
        """Return the states of entities without events."""
        no_values = np.empty(0, dtype=np.int64)
        words = np.empty((self._layout.width, 0), dtype=np.int64)
        hashes = np.empty((len(self._layout.hashed), 0), dtype=np.uint64)
        origin = EventOrigins(ts=no_values, partition=no_values, seq=no_values)
        return Tiles.from_events(self._layout, n, no_values, origin, words, hashes)
