"""What the windows of entities held at any past time, from their events in order (SEMANTICS 3.1, 3.3, 3.8).

Events are sorted by (entity, ts, partition, seq), so a window is a range of them::

    events of an entity   ' '' '  '''  '   ' '' '    '  ''
    window at t                [------------------)
    does not count yet                     x   x
    pieces                     [-----------) [-) [)

A range is answered in a few steps whatever its length; events in it that do not count at t cut it into pieces,
whose states are merged as tiles are. So the work grows with the events, the questions and the cuts, not with how
many events a window holds. Words, merging and the finaliser are those of the online store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.finalise import Finaliser
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import window_start
from skewless.contract.windows.range_extremes import RangeExtremes
from skewless.contract.windows.range_pieces import LimitFilter, Ranges, pieces
from skewless.contract.windows.segments import first_at_least
from skewless.contract.windows.sketch import Hashes, distinct, smallest
from skewless.contract.windows.sketch_ranges import RangeSketches
from skewless.contract.windows.state_layout import EventOrigins, StateLayout
from skewless.contract.windows.tiles import starts_of
from skewless.contract.windows.view import Function, WindowView

_MOST_PIECES = 1 << 19
_MOST_WORDS = 1 << 23  # of the states of some pieces
_MOST_HASHES = 1 << 22
_Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Events of n entities, by (entity, ts, partition, seq).

    Args:
        bounds: where each entity's events begin, and behind the last one's end, shape ``(n + 1,)``.
        order: which of the events as they were given each one is.
        ts: microseconds.
        words, hashes: as in ``ViewEvents``.
    """

    bounds: Int64Array
    order: _Rows
    ts: Int64Array
    words: Int64Array
    hashes: Hashes

    @classmethod
    def of_events(cls, n: int, entity: Int64Array, origin: EventOrigins, words: Int64Array, hashes: Hashes) -> Timeline:
        """Return the events of n entities in order; fast where they are in order already.

        Args:
            entity: which entity each event belongs to, from 0.
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
    """Events whose value is beyond a query's limit do not count for it.

    Args:
        values: of the events, in the order in which the timeline was given them.
        most: of the queries.
    """

    values: Int64Array
    most: Int64Array


class WindowHistory:
    """Computes the features of one view at past times."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._finaliser = Finaliser(view)
        self._items = [
            [(i, item) for i, item in enumerate(view.aggregates) if (item.window_us, item.hop_us) == window]
            for window in view.windows
        ]
        most = min(_MOST_PIECES, _MOST_WORDS // max(1, self._layout.width))
        self._most = min(most, _MOST_HASHES // view.sketch_size) if self._layout.hashed else most

    def nothing(self) -> Floats:
        """Return the features of an entity without events, shape ``(n_features,)``."""
        none = dict.fromkeys(self._layout.hashed, np.zeros(1))
        words = self._layout.empty(1)
        return np.array([self._finaliser.feature(item, words, none)[0] for item in self._view.aggregates])

    def features(self, timeline: Timeline, entity: Int64Array, t: Int64Array, limits: Sequence[Limit] = ()) -> Floats:
        """Return the features of entities at times ``t``, shape ``(m, n_features)``; NaN is null.

        Fastest where the queries are sorted by (entity, t). Memory: some multiple of the timeline's, and bounded
        for the queries.

        Args:
            entity: of each query, as in the timeline.
            t: of each query, microseconds; events before it count, unless a limit says otherwise.
            limits: what else keeps an event from counting.
        """
        result = np.empty((len(t), len(self._view.aggregates)), dtype=np.float64)
        answers = _Answers(self._layout, timeline, self._view.sketch_size)
        marks = [LimitFilter(limit.values[timeline.order]) for limit in limits]
        waiting = [np.arange(first, min(first + self._most, len(t))) for first in range(0, len(t), self._most)]
        while waiting:
            rows = waiting.pop()
            lows, high = self._ranges(timeline, entity[rows], t[rows])
            out = self._left_out(lows, high, marks, [limit.most[rows] for limit in limits])
            if out is None:
                waiting += np.array_split(rows, 2)
            else:
                result[rows] = self._features(answers, lows, high, out)
        return result

    def _ranges(self, timeline: Timeline, entity: Int64Array, t: Int64Array) -> tuple[list[Int64Array], Int64Array]:
        """Return where each window begins, and where all of them end."""
        begin, end = timeline.bounds[entity], timeline.bounds[entity + 1]
        high = first_at_least(timeline.ts, begin, end, t)
        edges = [window_start(t, *window) for window in self._view.windows]
        return [first_at_least(timeline.ts, begin, high, edge) for edge in edges], high

    def _features(self, answers: _Answers, lows: Sequence[Int64Array], high: Int64Array, out: Ranges) -> Floats:
        result = np.empty((len(high), len(self._view.aggregates)), dtype=np.float64)
        for low, items in zip(lows, self._items, strict=True):
            hashed = any(item.function is Function.COUNT_DISTINCT for _, item in items)
            words, distincts = answers.of(low, high, out, hashed=hashed)
            for i, item in items:
                result[:, i] = self._finaliser.feature(item, words, distincts)
        return result

    def _left_out(
        self, lows: Sequence[Int64Array], high: Int64Array, marks: Sequence[LimitFilter], limits: Sequence[Int64Array]
    ) -> Ranges | None:
        """Return what does not count in the longest windows; None if it is too much for so many queries."""
        low = np.minimum.reduce(lows)
        most = self._most if len(high) > 1 else None
        found = []
        for mark, limit in zip(marks, limits, strict=True):
            out = mark.left_out(low, high, limit, most)
            if out is None:
                return None
            found.append(out)
        return Ranges.joined(found)


class _Answers:
    """The states of ranges of a timeline, with and without gaps."""

    def __init__(self, layout: StateLayout, timeline: Timeline, k: int) -> None:
        self._layout, self._k = layout, k
        self._states = RangeStates(layout, timeline.words)
        self._sketches = {column: RangeSketches(timeline.hashes[i], k) for i, column in enumerate(layout.hashed)}

    def of(
        self, low: Int64Array, high: Int64Array, out: Ranges, *, hashed: bool
    ) -> tuple[Int64Array, Mapping[str, Floats]]:
        """Return the states of ranges without what is left out of them, and their distinct counts if asked for."""
        left = pieces(low, high, out)
        cut = len(left) > len(low)
        words = self._states.of(left.low, left.high)
        if cut:
            words = self._layout.merged(words, starts_of(left.query))
        distincts = {}
        for column, sketches in self._sketches.items() if hashed else ():
            piece, hashes = sketches.smallest(left.low, left.high)
            group, hashes = smallest(left.query[piece], hashes, self._k) if cut else (piece, hashes)
            distincts[column] = distinct(len(low), group, hashes, self._k)
        return words, distincts


def _is_sorted(*columns: Int64Array) -> bool:
    """Say whether rows of columns grow, the first column being the most significant."""
    later: npt.NDArray[np.bool_] = np.ones(max(0, len(columns[0]) - 1), dtype=np.bool_)
    for column in columns[::-1]:
        before, after = column[:-1], column[1:]
        later = (after > before) | ((after == before) & later)
    return bool(later.all())


class RangeStates:
    """The states of ranges of events: sums by prefix, extremes by runs, first and last by neighbours.

    Memory: about the size of the words for sums, three times it for extremes, a quarter for first and last.

    Args:
        layout: of the view.
        words: of the events, shape ``(width, n)``; those of an entity lie together, by (ts, partition, seq).
    """

    def __init__(self, layout: StateLayout, words: Int64Array) -> None:
        self._layout, self._words = layout, words
        self._n = words.shape[1]
        # Differences are right even where a prefix wraps around: that of a range fits.
        self._sums = np.zeros((layout.added, self._n + 1), dtype=np.int64)
        np.cumsum(words[: layout.added], axis=1, out=self._sums[:, 1:])
        self._extremes = {
            key: RangeExtremes(_floats(words[place]), _better(key[1]), np.float64(np.nan))
            for key, place in layout.extremes.items()
        }
        self._moments = {key: self._neighbours(key[1], place + 3) for key, place in layout.moments.items()}

    def of(self, low: Int64Array, high: Int64Array) -> Int64Array:
        """Return the state of each range ``[low, high)``, shape ``(width, m)``; an empty one is that of nothing."""
        layout = self._layout
        result = layout.empty(len(low))
        for place in range(layout.added):
            prefix = self._sums[place]
            result[place] = prefix[high] - prefix[low]
        layout.carry(result)
        for key, place in layout.extremes.items():
            result[place] = self._extremes[key].of(low, high).view(np.int64)
        for (column, function), place in layout.moments.items():
            neighbour = self._moments[column, function]
            chosen = neighbour[low] if function is Function.FIRST else neighbour[high]
            some = np.flatnonzero((chosen >= low) & (chosen < high))
            result[place : place + 4, some] = self._words[place : place + 4, chosen[some]]
        return result

    def _neighbours(self, function: Function, place: int) -> Int64Array:
        """Return for each place, 0 to n, the next event with a value, or the one before it; n and -1: none."""
        null = np.isnan(_floats(self._words[place]))
        places = np.arange(self._n)
        result = np.empty(self._n + 1, dtype=np.int64)
        if function is Function.FIRST:
            result[self._n] = self._n
            result[:-1] = np.where(null, self._n, places)
            np.minimum.accumulate(result[::-1], out=result[::-1])
        else:
            result[0] = -1
            result[1:] = np.where(null, -1, places)
            np.maximum.accumulate(result, out=result)
        return result


def _better(function: Function) -> np.ufunc:
    return np.fmin if function is Function.MIN else np.fmax


def _floats(bits: Int64Array) -> Floats:
    return bits.view(np.float64)
