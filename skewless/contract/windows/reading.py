"""From records to features: the windows of a view at one time, for many entities at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.finalise import Finaliser
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import MILLISECOND, window_start
from skewless.contract.windows.sketch import Hashes, distinct, smallest
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import CODE, CODE_BITS, KIND_BITS, LEVEL, Tiles, starts_of
from skewless.contract.windows.view import Function, WindowView

_Rows = npt.NDArray[np.intp]


class WindowReader:
    """Computes the features of one view, all windows in the same few steps: of a small read, the steps are the time."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._finaliser = Finaliser(view)
        self._hops = np.array([MILLISECOND, *view.hops], dtype=np.int64)
        self._level = np.array([[view.level(hop)] for _, hop in view.windows], dtype=np.int64)
        places = {window: i for i, window in enumerate(view.windows)}
        # What is computed alike is computed at once for all windows: which features take which window's result.
        self._alike: dict[tuple[Function, str], list[tuple[int, int]]] = {}
        for i, item in enumerate(view.aggregates):
            self._alike.setdefault((item.function, item.column), []).append((i, places[item.window_us, item.hop_us]))

    def features(self, tiles: Tiles, t: int) -> Floats:
        """Return the features at time ``t``, shape ``(n, n_features)``; NaN is null.

        Args:
            t: microseconds, a whole millisecond; not before a state's ``m``.
        """
        n, windows = tiles.n, len(self._view.windows)
        code = tiles.tag & CODE
        begin = (tiles.tag >> CODE_BITS) * self._hops[code & LEVEL]
        inside = begin >= self._edges(t)[:, None]
        counts = inside & (((code == 0) & (begin < t)) | (code == self._level))
        first, rows = _places(counts, n)
        words = self._merged(tiles, first, rows)
        distincts = self._distincts(tiles, inside, code, first, rows) if self._layout.hashed else {}
        result = np.empty((n, len(self._view.aggregates)), dtype=np.float64)
        for alike in self._alike.values():
            item = self._view.aggregates[alike[0][0]]
            values = self._finaliser.feature(item, words, distincts).reshape(windows, n)
            for feature, place in alike:
                result[:, feature] = values[place]
        return result

    def _edges(self, t: int) -> Int64Array:
        return np.array([window_start(t, *window) for window in self._view.windows], dtype=np.int64)

    def _merged(self, tiles: Tiles, first: _Rows, rows: _Rows) -> Int64Array:
        """Return the states of all windows, shape ``(width, n_windows * n)``.

        Args:
            first: of each record that counts, where the states of its window begin.
        """
        words = self._layout.empty(len(self._view.windows) * tiles.n)
        if len(rows) and self._layout.width:
            state = first + tiles.entity[rows]
            starts = starts_of(state)
            chosen = np.ascontiguousarray(tiles.words.take(rows, axis=0)[:, : self._layout.width].T)
            words[:, state[starts]] = self._layout.merged(chosen, starts)
        return words

    def _distincts(
        self, tiles: Tiles, inside: BoolArray, code: Int64Array, first: _Rows, rows: _Rows
    ) -> dict[str, Floats]:
        """Return, per column of ``count_distinct``, the counts of all windows, shape ``(n_windows * n,)``."""
        k, size, states = self._view.sketch_size, tiles.words.shape[1], len(self._view.windows) * tiles.n
        begins, sketched = _places(inside & (code > LEVEL) & ((code & LEVEL) == self._level), tiles.n)
        kind, found = code[sketched] >> KIND_BITS, {}
        for c, column in enumerate(self._layout.hashed):
            own = np.flatnonzero(kind == c + 1)
            mine = sketched[own]
            state = begins[own] + tiles.entity[mine]
            group = np.concatenate([first + tiles.entity[rows], np.repeat(state, size)])
            words = np.concatenate([tiles.words[rows, self._layout.width + c], tiles.words[mine].ravel()])
            hashes: Hashes = words.view(np.uint64)
            found[column] = distinct(states, *smallest(group, hashes, k), k)
        return found


def _places(chosen: BoolArray, n: int) -> tuple[_Rows, _Rows]:
    """Return which records are chosen for each window, window after window, and where its n states begin.

    Args:
        chosen: shape ``(n_windows, n_records)``.
    """
    rows = [np.flatnonzero(window) for window in chosen]
    return np.repeat(np.arange(len(rows)) * n, list(map(len, rows))), np.concatenate(rows)
