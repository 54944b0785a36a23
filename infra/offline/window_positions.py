"""Positions of log partitions: up to where states have them applied, and which of them touched which entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.rolling import Roller
from skewless.contract.windows.segments import first_at_least
from skewless.contract.windows.state_layout import EventOrigins, StateLayout, partition_number
from skewless.contract.windows.tiles import AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.window_events import EventChunk, LogPart, WindowEvents, events_of_rows

if TYPE_CHECKING:
    import duckdb

_TOUCHED_ROWS = 1_000_000
_REBUILT_ROWS = 250_000


def applied_matrix(slots: AppliedPositions, parts: list[LogPart], n: int) -> tuple[Int64Array, BoolArray]:
    """Return the last applied position per row and part, shape ``(n, n_parts)``, and which slots name a part."""
    hashes = np.array([partition_number(part.partition) for part in parts], dtype=np.int64)
    order = np.argsort(hashes)
    place = np.searchsorted(hashes[order], slots.partition).clip(max=max(len(parts) - 1, 0))
    known = hashes[order][place] == slots.partition if len(parts) else np.zeros(len(slots.entity), dtype=np.bool_)
    applied = np.full((n, len(parts)), -1, dtype=np.int64)
    applied[slots.entity[known], order[place[known]]] = slots.seq[known]
    return applied, np.asarray(known, dtype=np.bool_)


def touched_between(
    connection: duckdb.DuckDBPyConnection,
    view: WindowView,
    part: LogPart,
    entities: pa.Table,
    after: Int64Array,
    upto: Int64Array,
) -> BoolArray:
    """Return for each entity row whether an event that counts for it lies at ``after < position <= upto``.

    Args:
        entities: key columns and ``__t``; a row with a null key was touched by nothing.
    """
    touched = np.zeros(entities.num_rows, dtype=np.bool_)
    if not part.files or not entities.num_rows:
        return touched
    keys = [column.name for column in view.keys]
    events = WindowEvents(connection, view, [part], {part.partition: int(upto.max(initial=-1))}, known=False)
    with closing(events_of_rows(connection, events, entities, keys, _TOUCHED_ROWS)) as chunks:
        for chunk, rows, entity in chunks:
            touched[rows] = _touched(chunk, entity, after[rows], upto[rows])
    return touched


def _touched(chunk: EventChunk, entity: Int64Array, after: Int64Array, upto: Int64Array) -> BoolArray:
    seq = chunk.events.origin.seq
    order = np.lexsort((seq, chunk.entity))
    seq, bounds = seq[order], np.searchsorted(chunk.entity[order], np.arange(chunk.keys + 1))
    begin, end = bounds[entity], bounds[entity + 1]
    found = first_at_least(seq, begin, end, after + 1)
    return np.asarray((found < end) & (np.append(seq, 0)[found] <= upto), dtype=np.bool_)


RebuiltPredictions = tuple[npt.NDArray[np.intp], Tiles]


def rebuilt_states(
    connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPart], keys: pa.Table, m: int
) -> Iterator[RebuiltPredictions]:
    """Yield the states of entities from all events of the log, some at a time: which rows, and their states.

    An entity without events has a state that holds nothing. The connection must not be used meanwhile.

    Args:
        keys: key columns, whole and distinct.
        m: before which moment events are rolled up, microseconds.
    """
    entities = keys.append_column(TIME, pa.array(np.zeros(keys.num_rows, dtype=np.int64)))
    events = WindowEvents(connection, view, parts, {}, known=False)
    maker = _Maker(view, m)
    left = np.ones(keys.num_rows, dtype=np.bool_)
    names = [column.name for column in view.keys]
    with closing(events_of_rows(connection, events, entities, names, _REBUILT_ROWS)) as chunks:
        for chunk, rows, _ in chunks:  # sorted by the key's number, and each key has one row
            left[rows] = False
            yield rows, maker.states(chunk)
    if left.any():
        yield np.flatnonzero(left), maker.nothing(int(left.sum()))


class _Maker:
    def __init__(self, view: WindowView, m: int) -> None:
        self._layout, self._roller, self._m = StateLayout(view), Roller(view), m

    def states(self, chunk: EventChunk) -> Tiles:
        seen = chunk.events
        tiles = Tiles.of_events(self._layout, chunk.keys, chunk.entity, seen.origin, seen.words, seen.hashes)
        return self._roller.roll(tiles, self._m)

    def nothing(self, n: int) -> Tiles:
        none = np.empty(0, dtype=np.int64)
        words = np.empty((self._layout.width, 0), dtype=np.int64)
        hashes = np.empty((len(self._layout.hashed), 0), dtype=np.uint64)
        origin = EventOrigins(ts=none, partition=none, seq=none)
        return Tiles.of_events(self._layout, n, none, origin, words, hashes)
