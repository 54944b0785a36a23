"""The features of windowed views, from the records of their states (SEMANTICS 3.5, 3.7)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import MILLISECOND, window_start
from skewless.contract.windows.sketch import Hashes, estimate_distinct, select_smallest
from skewless.contract.windows.state_layout import Finaliser, StateLayout
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
        self._level = np.array([[view.level(hop)] for _, hop in view.windows], dtype=np.int64)
        # By code, since one look-up is faster than arithmetic on the level: the hop, and the windows that count it. A
        # window counts the tiles of its own level, and the records of milliseconds.
        codes = np.arange(CODE + 1)
        levels = np.minimum(codes & LEVEL, len(view.hops))
        self._hop_of_code = np.array([MILLISECOND, *view.hops], dtype=np.int64)[levels]
        self._counts_code = (codes == 0) | (codes == self._level)
        # Features with the same function and column are computed together for all windows.
        keys = [(item.function, item.column, item.place) for item in view.aggregates]
        windows = [view.windows.index((item.window_us, item.hop_us)) for item in view.aggregates]
        groups = dict(zip(keys, view.aggregates, strict=True))
        self._groups = list(groups.values())
        order = [list(groups).index(key) * len(view.windows) + i for key, i in zip(keys, windows, strict=True)]
        self._order = np.array(order, dtype=np.intp)

    def features(self, tiles: Tiles, t: int) -> Floats:
        """Return the features at time ``t``, shape ``(n, n_features)``; NaN is null.

        Args:
            t: microseconds, at a whole millisecond, and not before the ``m`` of a state.
        """
        n, windows = tiles.n, len(self._view.windows)
        code = tiles.tag & CODE
        begin = (tiles.tag >> CODE_BITS) * self._hop_of_code.take(code)
        edges = np.array([[window_start(t, *window)] for window in self._view.windows], dtype=np.int64)
        inside = begin >= edges
        counts = self._counts_code.take(code, axis=1)
        counts &= inside
        counts &= begin < t  # tiles end before `m`, so before t
        window, rows = _find_records(counts)
        words = self._merge(tiles, window * n + tiles.entity.take(rows), rows)
        distincts = self._count_distinct(tiles, inside, code, window, rows) if self._layout.hashed else {}
        values = [self._finaliser.compute_feature(item, words, distincts) for item in self._groups]
        features: Floats = np.concatenate(values).reshape(len(values) * windows, n).take(self._order, axis=0).T
        return features

    def _merge(self, tiles: Tiles, state: _Rows, rows: _Rows) -> Int64Array:
        """Return the states of all windows, shape ``(width, n_windows * n)``.

        Args:
            state: for each counted record, the position of its state; growing.
            rows: the counted records.
        """
        width, n_states = self._layout.width, len(self._view.windows) * tiles.n
        if not (len(rows) and width):
            return self._layout.empty(n_states)
        starts = find_run_starts(state)
        # "clip" never clips here; unlike "raise", it copies no array that is not contiguous.
        chosen = np.ascontiguousarray(tiles.words.take(rows, axis=0, mode="clip")[:, :width].T)
        merged = self._layout.merge(chosen, starts)
        if len(starts) == n_states:
            return merged
        words = self._layout.empty(n_states)
        words[:, state[starts]] = merged
        return words

    def _count_distinct(
        self, tiles: Tiles, inside: BoolArray, code: Int64Array, window: _Rows, rows: _Rows
    ) -> dict[str, Floats]:
        """Return, per column of ``count_distinct``, the counts of all windows, shape ``(n_windows * n,)``."""
        k, size, n = self._view.sketch_size, tiles.words.shape[1], tiles.n
        sketch_windows, sketched = _find_records(inside & (code > LEVEL) & ((code & LEVEL) == self._level))
        kind, counts = code[sketched] >> KIND_BITS, {}
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
