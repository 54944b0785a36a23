"""Compute window features at past times from the sorted events of entities (SEMANTICS 3.1, 3.3, 3.8).

Events are sorted by (entity, ts, partition, seq), so a window is a range of them::

    events of an entity   ' '' '  '''  '   ' '' '    '  ''
    window at t                [------------------)
    does not count yet                     x   x
    parts                      [-----------) [-) [)

The state of a range takes a few steps, whatever its length. Events that do not count at t split the range into parts,
whose states are merged like tiles. So the cost grows with the events, the queries and the splits, not with the number
of events in a window. Words, merging and the finaliser are those of the online store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import window_start
from skewless.contract.windows.ranges import LimitFilter, RangeExtremes, Ranges, first_at_least, split_ranges
from skewless.contract.windows.sketch import Hashes, RangeSketches, estimate_distinct, select_smallest
from skewless.contract.windows.state_layout import FIRST_LAST_WORDS, EventOrigins, Finaliser, StateLayout
from skewless.contract.windows.tiles import find_run_starts
from skewless.contract.windows.view import Function, WindowView

_MOST_PARTS = 1 << 19
_MOST_WORDS = 1 << 23  # words of the states in one batch of queries
_MOST_HASHES = 1 << 22
_Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Events of n entities, sorted by (entity, ts, partition, seq).

    Args:
        bounds: the start of each entity's events, and the end of the last, shape ``(n + 1,)``.
        order: the input position of each event.
        ts: event times, microseconds.
        words, hashes: as in ``ViewEvents``.
    """

    bounds: Int64Array
    order: _Rows
    ts: Int64Array
    words: Int64Array
    hashes: Hashes

    @classmethod
    def from_events(
        cls, n: int, entity: Int64Array, origin: EventOrigins, words: Int64Array, hashes: Hashes
    ) -> Timeline:
        """Return the sorted events of n entities; fast if they are sorted already.

        Args:
            entity: number of each event's entity, from 0.
        """
        columns = (entity, origin.ts, origin.partition, origin.seq)
        order = np.arange(len(entity))
        ts = origin.ts
        if not _is_sorted(*columns):
            order = np.lexsort(columns[::-1])
            entity, ts, words, hashes = entity[order], ts[order], words[:, order], hashes[:, order]
        return cls(bounds=np.searchsorted(entity, np.arange(n + 1)), order=order, ts=ts, words=words, hashes=hashes)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit of each query: events with a greater value do not count.

    Args:
        values: one value per event, in the input order of the timeline.
        most: one limit per query.
    """

    values: Int64Array
    most: Int64Array


_Sketches = Mapping[str, tuple[Int64Array, Hashes]]  # per hashed column: queries and hashes, sorted


@dataclass(frozen=True, kw_only=True)
class QueryStates:
    """The states of the windows of m queries, from some of the events; ``WindowHistory.merge`` adds others.

    Args:
        words: per window of the view, the states, shape ``(width, m)``.
        sketches: per window of the view, the smallest hashes, if it has distinct counts.
    """

    words: Sequence[Int64Array]
    sketches: Sequence[_Sketches]


class WindowHistory:
    """Computes the features of one view at past times."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._finaliser = Finaliser(view)
        self._items = [
            {i: item for i, item in enumerate(view.aggregates) if (item.window_us, item.hop_us) == window}
            for window in view.windows
        ]
        # Bound the memory of a batch of queries, whatever the width of states and sketches.
        most = min(_MOST_PARTS, _MOST_WORDS // max(1, self._layout.width))
        self._most = min(most, _MOST_HASHES // view.sketch_size) if self._layout.hashed else most

    def empty_features(self) -> Floats:
        """Return the features of an entity without events, shape ``(n_features,)``."""
        none = dict.fromkeys(self._layout.hashed, np.zeros(1))
        words = self._layout.empty(1)
        return np.concatenate([*self._finaliser.compute_features(self._view.aggregates, words, none)])

    def features(self, timeline: Timeline, entity: Int64Array, t: Int64Array, limits: Sequence[Limit] = ()) -> Floats:
        """Return the features of entities at times ``t``, shape ``(m, n_features)``; NaN is null.

        Fastest if the queries are sorted by (entity, t). Memory: a small multiple of the timeline's; bounded for the
        queries.

        Args:
            entity: number of each query's entity, as in the timeline.
            t: time of each query, microseconds; events before it count unless a limit excludes them.
            limits: further limits on the events that count.
        """
        result = np.empty((len(t), len(self._view.aggregates)), dtype=np.float64)
        for rows, window, words, sketches in self._compute(timeline, entity, t, limits):
            self._finish(result, rows, window, words, sketches)
        return result

    def states(
        self, timeline: Timeline, entity: Int64Array, t: Int64Array, limits: Sequence[Limit] = ()
    ) -> QueryStates:
        """Return the states of the windows whose features ``features`` returns, from a part of the events.

        Memory: in addition to that of ``features``, the states of all queries.
        """
        words = [self._layout.empty(len(t)) for _ in self._items]
        parts: list[dict[str, list[tuple[Int64Array, Hashes]]]] = [{} for _ in self._items]
        for rows, window, some, sketches in self._compute(timeline, entity, t, limits):
            words[window][:, rows] = some
            for column, (query, hashes) in sketches.items():
                parts[window].setdefault(column, []).append((rows[query], hashes))
        return QueryStates(words=words, sketches=[self._join(each) for each in parts])

    def merge(self, one: QueryStates, other: QueryStates) -> QueryStates:
        """Return the states of the same queries from the events of both; no event may be in both."""
        width, m = one.words[0].shape
        words = [
            self._layout.merge(np.stack(pair, axis=2).reshape(width, 2 * m), np.arange(0, 2 * m, 2))
            for pair in zip(one.words, other.words, strict=True)
        ]
        pairs = zip(one.sketches, other.sketches, strict=True)
        sketches = [self._join({column: [a[column], b[column]] for column in a}) for a, b in pairs]
        return QueryStates(words=words, sketches=sketches)

    def finish(self, states: QueryStates) -> Floats:
        """Return the features of states, shape ``(m, n_features)``; NaN is null."""
        rows = np.arange(states.words[0].shape[1])
        result = np.empty((len(rows), len(self._view.aggregates)), dtype=np.float64)
        for window, (words, sketches) in enumerate(zip(states.words, states.sketches, strict=True)):
            self._finish(result, rows, window, words, sketches)
        return result

    def _join(self, parts: Mapping[str, Sequence[tuple[Int64Array, Hashes]]]) -> _Sketches:
        joined = {}
        for column, some in parts.items():
            group, hashes = (np.concatenate([part[i] for part in some]) for i in (0, 1))
            joined[column] = select_smallest(group, hashes, self._view.sketch_size)
        return joined

    def _finish(self, result: Floats, rows: _Rows, window: int, words: Int64Array, sketches: _Sketches) -> None:
        k = self._view.sketch_size
        distincts = {column: estimate_distinct(len(rows), *some, k) for column, some in sketches.items()}
        items = self._items[window]
        for i, feature in zip(items, self._finaliser.compute_features(items.values(), words, distincts), strict=True):
            result[rows, i] = feature

    def _compute(
        self, timeline: Timeline, entity: Int64Array, t: Int64Array, limits: Sequence[Limit]
    ) -> Iterator[tuple[_Rows, int, Int64Array, _Sketches]]:
        """Yield some queries, the number of a window, and its states and sketches for these queries."""
        queries = _RangeQueries(self._layout, timeline, self._view.sketch_size)
        filters = [LimitFilter(limit.values[timeline.order]) for limit in limits]
        batches = [np.arange(first, min(first + self._most, len(t))) for first in range(0, len(t), self._most)]
        while batches:
            rows = batches.pop()
            lows, high = self._ranges(timeline, entity[rows], t[rows])
            excluded = self._find_excluded(lows, high, filters, [limit.most[rows] for limit in limits])
            if excluded is None:  # too many for the memory bound: try half of the queries
                batches += np.array_split(rows, 2)
                continue
            for window, (low, items) in enumerate(zip(lows, self._items, strict=True)):
                hashed = any(item.function is Function.COUNT_DISTINCT for item in items.values())
                yield rows, window, *queries.compute(low, high, excluded, hashed=hashed)

    def _ranges(self, timeline: Timeline, entity: Int64Array, t: Int64Array) -> tuple[list[Int64Array], Int64Array]:
        """Return the first event of each window, and the common end of all windows, as positions in the timeline."""
        begin, end = timeline.bounds[entity], timeline.bounds[entity + 1]
        high = first_at_least(timeline.ts, begin, end, t)
        edges = [window_start(t, *window) for window in self._view.windows]
        return [first_at_least(timeline.ts, begin, high, edge) for edge in edges], high

    def _find_excluded(
        self, lows: Sequence[Int64Array], high: Int64Array, filters: Sequence[LimitFilter], limits: Sequence[Int64Array]
    ) -> Ranges | None:
        """Return the events that do not count in the longest windows; None: too many for the memory bound."""
        # The longest window includes all others.
        low = np.minimum.reduce(lows)
        # A single query cannot be halved, so it has no limit.
        most = self._most if len(high) > 1 else None
        parts = []
        for filter_, limit in zip(filters, limits, strict=True):
            excluded = filter_.find_excluded(low, high, limit, most)
            if excluded is None:
                return None
            parts.append(excluded)
        return Ranges.merge(parts)


class _RangeQueries:
    """Computes the states of ranges of a timeline, without excluded events."""

    def __init__(self, layout: StateLayout, timeline: Timeline, k: int) -> None:
        self._layout, self._k = layout, k
        self._states = RangeStates(layout, timeline.words)
        self._sketches = {column: RangeSketches(timeline.hashes[i], k) for i, column in enumerate(layout.hashed)}

    def compute(
        self, low: Int64Array, high: Int64Array, excluded: Ranges, *, hashed: bool
    ) -> tuple[Int64Array, _Sketches]:
        """Return the states of ranges without their excluded events, and the sketches if ``hashed``."""
        parts = split_ranges(low, high, excluded)
        is_split = len(parts) > len(low)
        words = self._states.compute(parts.low, parts.high)
        if is_split:
            words = self._layout.merge(words, find_run_starts(parts.query))
        smallest = {}
        for column, sketches in self._sketches.items() if hashed else ():
            part, hashes = sketches.select_smallest(parts.low, parts.high)
            smallest[column] = select_smallest(parts.query[part], hashes, self._k) if is_split else (part, hashes)
        return words, smallest


def _is_sorted(*columns: Int64Array) -> bool:
    """Say whether the rows of some columns grow strictly; the first column is the most significant."""
    later: npt.NDArray[np.bool_] = np.ones(max(0, len(columns[0]) - 1), dtype=np.bool_)
    for column in columns[::-1]:
        before, after = column[:-1], column[1:]
        later = (after > before) | ((after == before) & later)
    return bool(later.all())


class RangeStates:
    """Computes states of ranges of events: sums from prefix sums, extremes from runs, first and last from neighbours.

    Memory: about once the size of the words for sums, three times for extremes, a quarter for first and last.

    Args:
        layout: layout of the view's states.
        words: states of the events, shape ``(width, n)``, sorted by (entity, ts, partition, seq).
    """

    def __init__(self, layout: StateLayout, words: Int64Array) -> None:
        self._layout, self._words = layout, words
        self._n = words.shape[1]
        # A prefix sum may overflow: the difference of two prefixes is right modulo 2^64, and the sum of a range fits.
        self._sums = np.zeros((layout.added, self._n + 1), dtype=np.int64)
        np.cumsum(words[: layout.added], axis=1, out=self._sums[:, 1:])
        self._extremes = {
            key: RangeExtremes(
                _floats(words[position]), np.fmin if key[1] is Function.MIN else np.fmax, np.float64(np.nan)
            )
            for key, position in layout.extremes.items()
        }
        self._neighbours = {
            key: self._find_neighbours(key[1], position + 3) for key, position in layout.first_last.items()
        }

    def compute(self, low: Int64Array, high: Int64Array) -> Int64Array:
        """Return the state of each range ``[low, high)``, shape ``(width, m)``; an empty range has the empty state."""
        layout = self._layout
        result = layout.empty(len(low))
        for position in range(layout.added):
            prefix = self._sums[position]
            result[position] = prefix[high] - prefix[low]
        # The low words of a long range are beyond 32 bits; carried, as in `merge`, parts may be added to each other.
        layout.carry(result)
        for key, position in layout.extremes.items():
            result[position] = self._extremes[key].find(low, high).view(np.int64)
        for key, position in layout.first_last.items():
            values, events = layout.sequence(result, key), self._words[position : position + FIRST_LAST_WORDS]
            neighbour, is_first = self._neighbours[key], key[1] is Function.FIRST
            rows, chosen = np.arange(len(low)), neighbour[low if is_first else high]
            for place in values:
                # A neighbour outside the range means that no further event of the range has a value.
                inside = np.flatnonzero((chosen >= low[rows]) & (chosen < high[rows]))
                rows, chosen = rows[inside], chosen[inside]
                place[:, rows] = events[:, chosen]
                chosen = neighbour[chosen + 1 if is_first else chosen]
        return result

    def _find_neighbours(self, function: Function, position: int) -> Int64Array:
        """Return for each position, 0 to n, the next event with a value (n: none), or the previous one (-1: none)."""
        null = np.isnan(_floats(self._words[position]))
        positions = np.arange(self._n)
        result = np.empty(self._n + 1, dtype=np.int64)
        if function is Function.FIRST:
            result[self._n] = self._n
            result[:-1] = np.where(null, self._n, positions)
            np.minimum.accumulate(result[::-1], out=result[::-1])
        else:
            result[0] = -1
            result[1:] = np.where(null, -1, positions)
            np.maximum.accumulate(result, out=result)
        return result


def _floats(bits: Int64Array) -> Floats:
    return bits.view(np.float64)
