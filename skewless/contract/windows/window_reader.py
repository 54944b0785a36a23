"""Computes the features of windowed views from the records of entities (SEMANTICS 3.4, 3.5)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import MILLISECOND, window_start
from skewless.contract.windows.sketch import Hashes, estimate_distinct, select_smallest
from skewless.contract.windows.state_layout import EVER, Finaliser, StateLayout
from skewless.contract.windows.tiles import CODE, CODE_BITS, KIND_BITS, LEVEL, Tiles, find_run_starts
from skewless.contract.windows.view import Function, WindowView

_Rows = npt.NDArray[np.intp]


class WindowReader:
    """Computes the features of one view.

    All windows share the same numpy calls: the number of calls dominates the time of a small read.
    """

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._finaliser = Finaliser(view)
        self._hops = np.array([MILLISECOND, *view.hops], dtype=np.int64)
        self._level = np.array([[view.level(hop)] for _, hop in view.windows], dtype=np.int64)
        positions = {window: i for i, window in enumerate(view.windows)}
        # Features with the same function and column are computed together for all windows: (feature, window) of each.
        self._groups: dict[tuple[Function, str, int], list[tuple[int, int]]] = {}
        for i, item in enumerate(view.aggregates):
            self._groups.setdefault((item.function, item.column, item.place), []).append(
                (i, positions[item.window_us, item.hop_us])
            )

    def features(self, tiles: Tiles, t: int | Int64Array) -> Floats:
        """Return the features at time ``t``, shape ``(n, n_features)``; NaN is null.

        Args:
            t: microseconds, at a whole millisecond, and not before the ``m`` of a state; one time for all entities, or
                one for each, shape ``(n,)``.
        """
        code = tiles.tag & CODE
        begin = (tiles.tag >> CODE_BITS) * self._hops[code & LEVEL]
        times: int | Int64Array
        if isinstance(t, np.ndarray):
            times = t = t[tiles.entity]
            edges = np.array([window_start(t, *window) for window in self._view.windows], dtype=np.int64)
        else:  # the common case, without a time for each record
            times, edges = t, np.array([[window_start(t, *window)] for window in self._view.windows], dtype=np.int64)
        inside = begin >= edges
        # A window counts the tiles of its own level, and the records of milliseconds before t.
        counts = inside & (((code == 0) & (begin < times)) | (code == self._level))
        first, rows = _choose_records(counts, tiles.n)
        words = self._merge(tiles, first, rows)
        distincts = self._count_distinct(tiles, inside, code, first, rows) if self._layout.hashed else {}
        return self._finalise(words, distincts, tiles.n)

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
        edges = np.array([window_start(t, *window) for window in self._view.windows], dtype=np.int64)
        is_fine = (tiles.tag & CODE) == 0
        newest = np.full(tiles.n, EVER)
        np.maximum.at(newest, tiles.entity[is_fine], (tiles.tag[is_fine] >> CODE_BITS) * MILLISECOND)
        # All records are before the time of a row: then only the left edges matter.
        settled = newest[base] < t
        keys = np.stack([base, np.where(settled, EVER, t), *edges])
        _, first, group = np.unique(keys, axis=1, return_index=True, return_inverse=True)
        grouped = tiles.take(base[first])
        # Rows of a group may differ in t, but the records before the latest one are the same.
        merged = self._states(grouped, t[first])
        begin = ts // MILLISECOND * MILLISECOND
        window, event = np.nonzero((begin >= edges[:, row]) & (begin < t[row]))
        states = np.arange(windows * n)
        of_group = np.tile(group.reshape(-1), windows) + np.repeat(np.arange(windows) * len(first), n)
        state = np.concatenate([states, window * n + row[event]])
        column = np.concatenate([of_group, merged.shape[1] + event])
        order = np.argsort(state, kind="stable")
        chosen = np.concatenate([merged, words], axis=1)[:, column[order]]
        together = self._layout.merge(np.ascontiguousarray(chosen), find_run_starts(state[order]))
        return self._finalise(together, {}, n)

    def _states(self, tiles: Tiles, t: Int64Array) -> Int64Array:
        """Return the states of all windows at a time for each entity, shape ``(width, n_windows * n)``."""
        code, times = tiles.tag & CODE, t[tiles.entity]
        begin = (tiles.tag >> CODE_BITS) * self._hops[code & LEVEL]
        inside = begin >= np.array([window_start(times, *window) for window in self._view.windows], dtype=np.int64)
        counts = inside & (((code == 0) & (begin < times)) | (code == self._level))
        return self._merge(tiles, *_choose_records(counts, tiles.n))

    def _finalise(self, words: Int64Array, distincts: dict[str, Floats], n: int) -> Floats:
        """Return the features of n entities from the states of all windows."""
        windows = len(self._view.windows)
        result = np.empty((n, len(self._view.aggregates)), dtype=np.float64)
        for group in self._groups.values():
            item = self._view.aggregates[group[0][0]]
            values = self._finaliser.compute_feature(item, words, distincts).reshape(windows, n)
            for feature, window in group:
                result[:, feature] = values[window]
        return result

    def _merge(self, tiles: Tiles, first: _Rows, rows: _Rows) -> Int64Array:
        """Return the states of all windows, shape ``(width, n_windows * n)``.

        Args:
            first: for each counted record, the position of its window's first state.
            rows: the counted records.
        """
        words = self._layout.empty(len(self._view.windows) * tiles.n)
        if len(rows) and self._layout.width:
            state = first + tiles.entity[rows]
            starts = find_run_starts(state)
            chosen = np.ascontiguousarray(tiles.words.take(rows, axis=0)[:, : self._layout.width].T)
            words[:, state[starts]] = self._layout.merge(chosen, starts)
        return words

    def _count_distinct(
        self, tiles: Tiles, inside: BoolArray, code: Int64Array, first: _Rows, rows: _Rows
    ) -> dict[str, Floats]:
        """Return, per column of ``count_distinct``, the counts of all windows, shape ``(n_windows * n,)``."""
        k, size, states = self._view.sketch_size, tiles.words.shape[1], len(self._view.windows) * tiles.n
        begins, sketched = _choose_records(inside & (code > LEVEL) & ((code & LEVEL) == self._level), tiles.n)
        kind, counts = code[sketched] >> KIND_BITS, {}
        for c, column in enumerate(self._layout.hashed):
            chosen = np.flatnonzero(kind == c + 1)
            records = sketched[chosen]
            state = begins[chosen] + tiles.entity[records]
            # Single events have one hash each; records of sketches have `size` hashes.
            group = np.concatenate([first + tiles.entity[rows], np.repeat(state, size)])
            words = np.concatenate([tiles.words[rows, self._layout.width + c], tiles.words[records].ravel()])
            hashes: Hashes = words.view(np.uint64)
            counts[column] = estimate_distinct(states, *select_smallest(group, hashes, k), k)
        return counts


def _choose_records(chosen: BoolArray, n: int) -> tuple[_Rows, _Rows]:
    """Return the first state of the window of each chosen record, and the chosen records, window by window.

    Args:
        chosen: shape ``(n_windows, n_records)``.
    """
    rows = [np.flatnonzero(window) for window in chosen]
    return np.repeat(np.arange(len(rows)) * n, list(map(len, rows))), np.concatenate(rows)
