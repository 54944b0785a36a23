"""Compute features of windowed views at past times from the accepted event log (SEMANTICS 3).

DuckDB reads the log, filters the events, sorts them by key and time and streams them. Numpy computes the windows of
some keys at a time with the code that the online store uses (``skewless.contract.windows.history``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls, int64_array, numbers
from skewless.contract.reads import build_window_read
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import Int64Array
from skewless.contract.windows.history import Limit, Timeline, WindowHistory
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.log.bucket_order import BucketRange
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.matched_rows import copy_to_table, register_tables
from skewless.infra.reads.offline.sql import quote_all
from skewless.infra.reads.offline.window_events import EventChunk, LogPartition, WindowEvents, read_row_events
from skewless.infra.reads.offline.window_positions import StateBuilder
from skewless.infra.reads.offline.window_sql import all_keys_sql, row_keys_sql

if TYPE_CHECKING:
    import duckdb

_KEYS = "all_window_keys"
_SELECTED = "selected_window_keys"
_CHUNK_WORDS = 1 << 23  # words of the states of a chunk's events
_LEAST_ROWS = 1_000

_T = TypeVar("_T")
_Limits = Callable[[EventChunk, npt.NDArray[np.intp]], list[Limit]]


class WindowJoin:
    """Computes windowed views from event logs.

    Memory: DuckDB's limit, the result, and one chunk of events with its states. If a single key has more events, or
    more rows, the states of its chunks are merged.

    Args:
        chunk_rows: number of events in a chunk; less if their states are large.
        buckets: of the entities that are read; None: all.

    Attributes:
        read_s: seconds in which reads waited for DuckDB, so far.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        chunk_rows: int = 1 << 18,
        buckets: BucketRange | None = None,
    ) -> None:
        self.connection, self._buckets = connection, buckets
        self._chunk_rows = chunk_rows
        self.read_s = 0.0

    def read(
        self,
        view: WindowView,
        parts: Sequence[LogPartition],
        entities: pa.Table,
        *,
        mode: TimeMode,
        upto: Mapping[str, int] | None = None,
    ) -> ViewRead:
        """Return the read of a view for each entity row at its time ``__t``.

        Args:
            entities: key columns and ``__t`` (int64 microseconds), in any order, with duplicates. A row with a null
                key has no features.
            mode: ``event_time``: all events before the time count, also late events; ``knowledge``: only events that
                serving could have known by then (3.8).
            upto: per partition, the last position that counts; of other partitions all positions count.
        """
        known = mode == "knowledge"
        events = self._open(view, parts, upto or {}, known=known)
        t = _times(entities)
        return self._read(
            view, events, entities, lambda chunk, rows: [Limit(values=chunk.known, most=t[rows])] if known else []
        )

    def read_applied(
        self, view: WindowView, parts: Sequence[LogPartition], entities: pa.Table, applied: Int64Array
    ) -> ViewRead:
        """Return the read of a view for each entity row at ``__t``, from the events applied so far.

        Args:
            entities: as for ``read``.
            applied: the last applied position per row and partition, shape ``(n, n_parts)``; -1: none.
        """
        # Read up to the highest position of any row. The limits below cut the events of each row.
        last = applied.max(axis=0, initial=-1).tolist()
        upto = {part.partition: position for part, position in zip(parts, last, strict=True)}
        events = self._open(view, parts, upto)

        def limits(chunk: EventChunk, rows: npt.NDArray[np.intp]) -> list[Limit]:
            return [
                Limit(
                    # -1 is within every limit: an event of another partition is limited by that partition's own entry.
                    values=np.where(chunk.part == number, chunk.events.origin.seq, -1),
                    most=applied[rows, events.part_index[number]],
                )
                for number in np.unique(chunk.part).tolist()
            ]

        return self._read(view, events, entities, limits)

    def read_keys(self, view: WindowView, parts: Sequence[LogPartition], upto: Mapping[str, int]) -> pa.Table:
        """Return the distinct keys of all events.

        Args:
            upto: as for ``read``.
        """
        events, names = self._open(view, parts, upto), quote_all(_names(view))
        query = f"SELECT DISTINCT {names} FROM ({events.sql})"
        return self.connection.sql(query, params=events.files).to_arrow_table()

    def states(
        self,
        view: WindowView,
        parts: Sequence[LogPartition],
        m: int,
        upto: Mapping[str, int] | None = None,
        only: pa.Table | None = None,
    ) -> Generator[tuple[pa.Table, Tiles]]:
        """Yield the states of entities with events, in chunks: their keys and their rolled-up tiles.

        The connection must not be used for anything else until the iterator is exhausted or closed.

        Args:
            m: time up to which events are rolled up, microseconds.
            upto: as for ``read``.
            only: keys of the entities; None: all entities.
        """
        events = self._open(view, parts, upto or {})
        if not events.files:
            return
        builder = StateBuilder(view, m)
        # Roll-up turns each millisecond record into a record per hop before it merges them.
        rows = max(1, self._chunk_size(StateLayout(view)) // (1 + len(view.hops)))
        numbered, parameters = all_keys_sql(_names(view), events.sql), events.files
        if only is not None:
            numbered, parameters = row_keys_sql(_names(view), _SELECTED, None), []
        with (
            register_tables(self.connection, {} if only is None else {_SELECTED: only}),
            copy_to_table(self.connection, _KEYS, numbered, parameters) as keys,
            closing(events.chunks(keys, rows)) as chunks,
        ):
            found: list[pa.Table] = []
            for chunk in chunks:
                _, first, entity = np.unique(chunk.entity, return_index=True, return_inverse=True)
                is_part = chunk.continues or bool(found)
                if not len(first) and not is_part:
                    continue
                found.append(chunk.events.keys.take(int64_array(first)))
                # Of the events in a part of a key, perhaps none counts.
                tiles = builder.add(chunk, 1 if is_part else len(first), entity)
                if tiles is None:
                    continue
                own, found = pa.concat_tables(found).slice(0, tiles.n), []
                if own.num_rows:
                    yield own, tiles

    def _open(
        self, view: WindowView, parts: Sequence[LogPartition], upto: Mapping[str, int], *, known: bool = False
    ) -> WindowEvents:
        return WindowEvents(self.connection, view, parts, upto, known=known, buckets=self._buckets)

    def _read(self, view: WindowView, events: WindowEvents, entities: pa.Table, limits: _Limits) -> ViewRead:
        names, t, layout = _names(view), _times(entities), StateLayout(view)
        history, states = WindowHistory(view), None
        # Rows without events keep these features: zero counts, all else null.
        features = np.tile(history.empty_features(), (len(t), 1))
        has_key = np.logical_and.reduce([~find_nulls(entities[name]) for name in names])
        # The left edge is floored to the hop, so a window begins up to a hop before `t - length` (SEMANTICS 3.1).
        reach, size = max(length + hop for length, hop in view.windows), self._chunk_size(layout)
        # The states of the rows of a key that has several chunks are kept from one to the next.
        words = len(view.windows) * (layout.width + view.sketch_size * len(layout.hashed))
        most = min(self._chunk_rows, max(_LEAST_ROWS, _CHUNK_WORDS // max(1, words)))
        with closing(read_row_events(self.connection, events, entities, names, size, reach, most)) as chunks:
            for chunk, rows, key in self._measure(chunks):
                counted = chunk.events
                timeline = Timeline.from_events(chunk.keys, chunk.entity, counted.origin, counted.words, counted.hashes)
                if states is None and not chunk.continues:
                    features[rows] = history.features(timeline, key, t[rows], limits(chunk, rows))
                    continue
                added = history.states(timeline, key, t[rows], limits(chunk, rows))
                states = added if states is None else history.merge(states, added)
                if not chunk.continues:
                    features[rows], states = history.finish(states), None
        return replace(build_window_read(view, features, t, has_key), unavailable=None)

    def _measure(self, chunks: Iterator[_T]) -> Iterator[_T]:
        began = time.perf_counter()
        for chunk in chunks:
            self.read_s += time.perf_counter() - began
            yield chunk
            began = time.perf_counter()
        self.read_s += time.perf_counter() - began

    def _chunk_size(self, layout: StateLayout) -> int:
        # RangeSketches stores sketches for each power of two of blocks: about ten hashes per event.
        words = layout.width + 10 * len(layout.hashed)
        return min(self._chunk_rows, _CHUNK_WORDS // max(1, words))


def _names(view: WindowView) -> list[str]:
    return [column.name for column in view.keys]


def _times(entities: pa.Table) -> Int64Array:
    return numbers(entities[TIME]).astype(np.int64)
