"""The past of windowed views, from the accepted event log (SEMANTICS 3): what their features were at each time.

DuckDB reads the log, keeps the events that may matter, sorts them by key and time and streams them out; numpy
computes the windows of some keys at a time, by the code of the online store (``skewless.contract.windows.history``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.reads import window_read
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import Int64Array
from skewless.contract.windows.history import Limit, Timeline, WindowHistory
from skewless.contract.windows.rolling import Roller
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.arrays import nulls
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.matched_rows import copied
from skewless.infra.offline.window_events import EventChunk, LogPart, WindowEvents, events_of_rows
from skewless.infra.offline.window_sql import all_keys_sql

if TYPE_CHECKING:
    import duckdb

_KEYS = "all_window_keys"
_CHUNK_WORDS = 1 << 23  # of the states of a chunk's events

_Limits = Callable[[EventChunk, npt.NDArray[np.intp]], list[Limit]]


class WindowJoin:
    """Computes windowed views from event logs.

    Memory: DuckDB's limit, the answer, and a chunk of events with what is computed from it; a chunk is larger than
    usual only where a single key has more events.

    Args:
        chunk_rows: how many events are computed at a time, fewer where their states are large.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, chunk_rows: int = 1_000_000) -> None:
        self._connection = connection
        self._chunk_rows = chunk_rows

    def read(
        self,
        view: WindowView,
        parts: Sequence[LogPart],
        entities: pa.Table,
        *,
        mode: TimeMode,
        upto: Mapping[str, int] | None = None,
    ) -> ViewRead:
        """Return what a view held for each entity row at its time ``__t``.

        Args:
            entities: key columns and ``__t`` (int64 microseconds); any order, duplicates kept. A row with a null
                key finds nothing.
            mode: ``event_time``: all events before the time count, late ones too; ``knowledge``: only those
                that serving could have known by then (3.8).
            upto: per partition, the last position that counts; others count as a whole.
        """
        known = mode == "knowledge"
        events = WindowEvents(self._connection, view, parts, upto or {}, known=known)
        t = _times(entities)
        return self._read(
            view, events, entities, lambda chunk, rows: [Limit(values=chunk.known, most=t[rows])] if known else []
        )

    def read_applied(
        self, view: WindowView, parts: Sequence[LogPart], entities: pa.Table, applied: Int64Array
    ) -> ViewRead:
        """Return what a view held for each entity row at ``__t`` where only some positions had been applied.

        Args:
            entities: as in ``read``.
            applied: the last applied position per row and part, shape ``(n, n_parts)``; -1: none.
        """
        last = applied.max(axis=0, initial=-1).tolist()
        upto = {part.partition: most for part, most in zip(parts, last, strict=True)}
        events = WindowEvents(self._connection, view, parts, upto, known=False)

        def limits(chunk: EventChunk, rows: npt.NDArray[np.intp]) -> list[Limit]:
            return [
                Limit(
                    values=np.where(chunk.part == number, chunk.events.origin.seq, -1),
                    most=applied[rows, events.place[number]],
                )
                for number in np.unique(chunk.part).tolist()
            ]

        return self._read(view, events, entities, limits)

    def states(
        self, view: WindowView, parts: Sequence[LogPart], m: int, upto: Mapping[str, int] | None = None
    ) -> Generator[tuple[pa.Table, Tiles]]:
        """Yield the states of all entities that have events, some at a time: their keys and their rolled-up tiles.

        The connection must not be used for anything else before the iterator is at its end or closed.

        Args:
            m: before which moment events are rolled up, microseconds.
            upto: as in ``read``.
        """
        events = WindowEvents(self._connection, view, parts, upto or {}, known=False)
        if not events.files:
            return
        layout, roller = StateLayout(view), Roller(view)
        rows = self._rows(layout) // (1 + len(view.hops))
        names = [column.name for column in view.keys]
        with (
            copied(self._connection, _KEYS, all_keys_sql(names, events.sql), events.files) as keys,
            closing(events.chunks(keys, rows)) as chunks,
        ):
            for chunk in chunks:
                seen = chunk.events
                _, first, entity = np.unique(chunk.entity, return_index=True, return_inverse=True)
                if len(first):
                    tiles = Tiles.of_events(layout, len(first), entity, seen.origin, seen.words, seen.hashes)
                    yield seen.keys.take(pa.array(first)), roller.roll(tiles, m)

    def _read(self, view: WindowView, events: WindowEvents, entities: pa.Table, limits: _Limits) -> ViewRead:
        names, t = [column.name for column in view.keys], _times(entities)
        history = WindowHistory(view)
        features = np.tile(history.nothing(), (len(t), 1))
        found = np.logical_and.reduce([~nulls(entities[name]) for name in names])
        reach, size = max(length + hop for length, hop in view.windows), self._rows(StateLayout(view))
        with closing(events_of_rows(self._connection, events, entities, names, size, reach)) as chunks:
            for chunk, rows, key in chunks:
                seen = chunk.events
                timeline = Timeline.of_events(chunk.keys, chunk.entity, seen.origin, seen.words, seen.hashes)
                features[rows] = history.features(timeline, key, t[rows], limits(chunk, rows))
        return replace(window_read(view, features, t, found), unanswered=None)

    def _rows(self, layout: StateLayout) -> int:
        # Sketches of runs of blocks are kept for each power of two: about ten hashes an event.
        words = layout.width + 10 * len(layout.hashed)
        return min(self._chunk_rows, _CHUNK_WORDS // max(1, words))


def _times(entities: pa.Table) -> Int64Array:
    return np.asarray(entities[TIME].to_numpy(), dtype=np.int64)
