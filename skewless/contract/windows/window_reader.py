"""The features of windowed views, from the records of their states (SEMANTICS 3.5, 3.7)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.sketch import Hashes, estimate_distinct, select_smallest
from skewless.contract.windows.state_layout import EVER, NEVER, Finaliser, StateLayout
from skewless.contract.windows.tiles import CODE, CODE_BITS, KIND_BITS, LEVEL, Tiles, find_run_starts
from skewless.contract.windows.view import WindowView

_FEW = 4_096  # pairs of windows and records
_Rows = npt.NDArray[np.intp]


class WindowReader:
    """Computes the features of one view, or of several views with one ``WindowView.structure``.

    All windows share the same numpy calls: the number of calls dominates the time of a small read.
    """

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._finaliser = Finaliser(view)
        # Columns with an entry for each window, so that an operation with an array concerns all windows.
        self._lengths, self._hops = np.array(view.windows, dtype=np.int64).T[:, :, None]
        # A window counts the tiles of its own level, and the records of milliseconds.
        levels = [{0, view.level(hop)} for _, hop in view.windows]
        self._counts_level = np.array([[level in own for level in range(len(view.hops) + 1)] for own in levels])
        self._hop_of_level = np.array([MILLISECOND, *view.hops], dtype=np.int64)
        self._step = int(np.gcd.reduce(view.windows, axis=None))
        self._first_tags = (-1, np.empty(0, dtype=np.int64))  # before any step
        # Features with the same function and column are computed together for all windows.
        keys = [(item.function, item.column, item.place) for item in view.aggregates]
        windows = [view.windows.index((item.window_us, item.hop_us)) for item in view.aggregates]
        groups = dict(zip(keys, view.aggregates, strict=True))
        self._groups = list(groups.values())
        order = [list(groups).index(key) * len(view.windows) + i for key, i in zip(keys, windows, strict=True)]
        self._order = np.array(order, dtype=np.intp)

    def features(self, tiles: Tiles, t: int | Int64Array) -> Floats:
        """Return the features at time ``t``, shape ``(n, n_features)``; NaN is null.

        Args:
            t: microseconds, at a whole millisecond, and not before the ``m`` of a state; one time for all entities, or
                one for each, shape ``(n,)``.
        """
        inside = self._find_inside(tiles, t)
        if not self._layout.hashed:
            return self._finalise(self._merge(tiles, *_find_records(inside)), {}, tiles.n)
        is_state = (tiles.tag & CODE) <= LEVEL
        window, rows = _find_records(inside & is_state)
        distincts = self._count_distinct(tiles, inside & ~is_state, window, rows)
        return self._finalise(self._merge(tiles, window, rows), distincts, tiles.n)

    @property
    def is_mergeable(self) -> bool:
        """Whether ``features_with`` can compute the view: it has no ``count_distinct``."""
        return bool(self._layout.width) and not self._layout.hashed

    def features_with(
        self, tiles: Tiles, base: Int64Array, t: Int64Array, row: Int64Array, ts: Int64Array, words: Int64Array
    ) -> Floats:
        """Return the features of n rows from the records of fewer entities, and from further events of each row.

        The records of an entity are merged once for all of its rows whose windows contain the same of them.

        Args:
            tiles: the records of the entities.
            base: entity of each row, shape ``(n,)``.
            t: time of each row, microseconds, shape ``(n,)``.
            row, ts: row and time of each further event.
            words: states of the further events, shape ``(width, n_events)``.
        """
        windows, n = len(self._view.windows), len(base)
        edges = self._find_edges(t)
        is_fine = (tiles.tag & CODE) == 0
        latest = np.full(tiles.n, EVER)
        np.maximum.at(latest, tiles.entity[is_fine], (tiles.tag[is_fine] >> CODE_BITS) * MILLISECOND)
        # All records are before the time of a row: then only the left edges matter.
        settled = latest[base] < t
        keys = np.stack([base, np.where(settled, EVER, t), *edges])
        _, first, group = np.unique(keys, axis=1, return_index=True, return_inverse=True)
        grouped = tiles.take(base[first])
        # Rows of a group may differ in t, but the records before the latest one are the same.
        merged = self._merge(grouped, *_find_records(self._find_inside(grouped, t[first])))
        begin = ts // MILLISECOND * MILLISECOND
        window, event = np.nonzero((begin >= edges[:, row]) & (begin < t[row]))
        states = np.arange(windows * n)
        of_group = np.tile(group.reshape(-1), windows) + np.repeat(np.arange(windows) * len(first), n)
        state = np.concatenate([states, window * n + row[event]])
        column = np.concatenate([of_group, merged.shape[1] + event])
        order = np.argsort(state, kind="stable")
        chosen = np.concatenate([merged, words], axis=1)[:, column[order]]
        together = self._layout.merge(np.ascontiguousarray(chosen), find_run_starts(state[order]), carry=False)
        return self._finalise(together, {}, n)

    def _find_inside(self, tiles: Tiles, t: int | Int64Array) -> BoolArray:
        """Return which records of milliseconds and of its own tiles are in each window, ``(n_windows, n_records)``."""
        tag, level = tiles.tag, tiles.tag & LEVEL
        if isinstance(t, int) and t >= 0:  # one time for all is the common case
            inside = tag >= self._find_first_tags(t).take(level, axis=1)
            # Tiles end before `m`, so before t, and their tags are less than those of milliseconds.
            return inside & (tag < t // MILLISECOND << CODE_BITS)
        times = t[tiles.entity] if isinstance(t, np.ndarray) else np.array([t])
        begin = (tag >> CODE_BITS) * self._hop_of_level.take(level)
        inside = begin >= self._find_edges(times)
        inside &= begin < times
        inside &= self._counts_level.take(level, axis=1)
        return inside

    def _find_first_tags(self, t: int) -> Int64Array:
        """Return the first tag of each level in each window at one time; they change when a window may move."""
        step, tags = self._first_tags
        if step != t // self._step:
            tags = self._find_edges(np.array([t])) // self._hop_of_level << CODE_BITS
            tags = np.where(self._counts_level, tags, NEVER)
            self._first_tags = t // self._step, tags
        return tags

    def _find_edges(self, times: Int64Array) -> Int64Array:
        """Return the left edges of all windows at some times, as ``window_start``; shape ``(n_windows, n)``."""
        edges: Int64Array = (times - self._lengths) // self._hops * self._hops
        return edges

    def _finalise(self, words: Int64Array, distincts: dict[str, Floats], n: int) -> Floats:
        """Return the features of n entities from the states of all windows."""
        values = np.concatenate([*self._finaliser.compute_features(self._groups, words, distincts)])
        features: Floats = values.reshape(len(self._groups) * len(self._view.windows), n).take(self._order, axis=0).T
        return features

    def _merge(self, tiles: Tiles, window: _Rows, rows: _Rows) -> Int64Array:
        """Return the states of all windows, shape ``(width, n_windows * n)``.

        Args:
            window, rows: the counted records, window by window.
        """
        # The position of each record's state, which grows.
        state = window if tiles.n == 1 else window * tiles.n + tiles.entity.take(rows)
        starts = find_run_starts(state)
        # "clip" never clips here; unlike "raise", it copies no array that is not contiguous.
        chosen = tiles.words.take(rows, axis=0, mode="clip").T
        merged = self._layout.merge(chosen, starts, carry=False)
        n_states = len(self._view.windows) * tiles.n
        if len(starts) == n_states:
            return merged
        words = self._layout.empty(n_states)
        words[:, state[starts]] = merged
        return words

    def _count_distinct(self, tiles: Tiles, sketches: BoolArray, window: _Rows, rows: _Rows) -> dict[str, Floats]:
        """Return, per column of ``count_distinct``, the counts of all windows, shape ``(n_windows * n,)``."""
        k, size, n = self._view.sketch_size, tiles.words.shape[1], tiles.n
        sketch_windows, sketched = _find_records(sketches)
        kind, counts = (tiles.tag[sketched] & CODE) >> KIND_BITS, {}
        for c, column in enumerate(self._layout.hashed):
            chosen = np.flatnonzero(kind == c + 1)
            records = sketched[chosen]
            state = sketch_windows[chosen] * n + tiles.entity[records]
            # Single events have one hash each; records of sketches have `size` hashes.
            group = np.concatenate([window * n + tiles.entity[rows], np.repeat(state, size)])
            words = np.concatenate([tiles.words[rows, self._layout.width + c], tiles.words[records].ravel()])
            hashes: Hashes = words.view(np.uint64)
            n_states = len(self._view.windows) * n
            counts[column] = estimate_distinct(n_states, *select_smallest(group, hashes, k), k)
        return counts


def _find_records(chosen: BoolArray) -> tuple[_Rows, _Rows]:
    """Return window and record of each chosen pair, shape ``(n_windows, n_records)``, window by window."""
    if chosen.size < _FEW:
        window, record = chosen.nonzero()
        return window, record
    rows = [window.nonzero()[0] for window in chosen]  # of many records, much faster than one call
    return np.arange(len(rows)).repeat(list(map(len, rows))), np.concatenate(rows)
