"""An index of event ids and their times of acceptance, in bounded memory (SEMANTICS 4.4).

Sorted runs of digests are merged as they grow, like the levels of a log-structured merge tree: 24 bytes per id, a few
binary searches per look-up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from skewless.contract.status import BoolArray, Int64Array

Digests = npt.NDArray[np.uint64]  # shape (2, n): the two halves of n digests

# Two runs are merged when their sizes are similar, so that an id is copied a logarithmic number of times.
_BIGGER = 2


@dataclass(frozen=True, kw_only=True)
class _SortedRun:
    """Distinct digests, sorted by their first halves, and the times of acceptance of their ids, microseconds."""

    digests: Digests
    accepted: Int64Array

    def __len__(self) -> int:
        return len(self.accepted)

    @classmethod
    def of(cls, digests: Digests, accepted: Int64Array) -> _SortedRun:
        order = np.lexsort((accepted, digests[1], digests[0]))
        digests, accepted = digests[:, order], accepted[order]
        last = np.append((digests[:, 1:] != digests[:, :-1]).any(axis=0), [True] * bool(len(accepted)))
        return cls(digests=digests[:, last], accepted=accepted[last])

    def chosen(self, rows: BoolArray) -> _SortedRun:
        return self if rows.all() else _SortedRun(digests=self.digests[:, rows], accepted=self.accepted[rows])

    def places(self, digests: Digests) -> Int64Array:
        """Return the indices of digests, which must be sorted by their first halves; -1: not in this run."""
        places = np.full(digests.shape[1], -1, dtype=np.int64)
        at = np.searchsorted(self.digests[0], digests[0])
        left = np.flatnonzero(at < len(self))
        while len(left):
            left = left[self.digests[0, at[left]] == digests[0, left]]
            same = self.digests[1, at[left]] == digests[1, left]
            places[left[same]] = at[left[same]]
            left = left[~same]  # another digest with the same first half: continue with the next one
            at[left] += 1
            left = left[at[left] < len(self)]
        return places


class IdIndex:
    """The ids that were accepted within a horizon.

    Memory: 24 bytes per id, for at most twice the ids of one horizon; a merge needs the same again.

    Args:
        horizon_us: how long an id is remembered after its event was accepted, microseconds; None: forever.
    """

    def __init__(self, horizon_us: int | None) -> None:
        self._horizon_us = horizon_us
        self._runs: list[_SortedRun] = []

    def __len__(self) -> int:
        """Return the number of stored ids, some of which may be past the horizon."""
        return sum(map(len, self._runs))

    def add(self, digests: Digests, accepted_us: Int64Array | int) -> None:
        """Add accepted ids; an id that is past the horizon is added again.

        >>> index, a = IdIndex(10), digests_of(["a"])
        >>> index.add(a, 0)
        >>> [index.known(a, now).tolist() for now in (10, 11)]
        [[True], [False]]
        >>> index.add(a, 11)
        >>> index.known(a, 21).tolist()
        [True]
        """
        if not digests.shape[1]:
            return
        moments = np.broadcast_to(np.asarray(accepted_us, dtype=np.int64), digests.shape[1:])
        self._runs.append(_SortedRun.of(digests, moments))
        since_us = self._since(int(moments.max()))
        while len(self._runs) > 1 and len(self._runs[-2]) <= _BIGGER * len(self._runs[-1]):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(_merged(*(run.chosen(run.accepted >= since_us) for run in (older, newer))))

    def known(self, digests: Digests, now_us: int) -> BoolArray:
        """Return which ids were accepted within the horizon before ``now_us``, inclusive; shape ``(n,)``."""
        found = np.zeros(digests.shape[1], dtype=np.bool_)
        order = np.argsort(digests[0])  # sorted look-ups reuse cache lines
        ordered = digests[:, order]
        for run in self._runs:
            places = run.places(ordered)
            found[order[places >= 0]] |= run.accepted[places[places >= 0]] >= self._since(now_us)
        return found

    def _since(self, now_us: int) -> int:
        return -(2**63) if self._horizon_us is None else now_us - self._horizon_us


def digests_of(ids: Iterable[str]) -> Digests:
    """Return 128-bit digests of ids; collisions do not occur in practice."""
    joined = b"".join(blake2b(name.encode(), digest_size=16).digest() for name in ids)
    return np.ascontiguousarray(np.frombuffer(joined, dtype="<u8").reshape(-1, 2).T)


def first_places(digests: Digests) -> BoolArray:
    """Return which digests are the first occurrence among the given ones.

    >>> first_places(digests_of(["b", "a", "b"])).tolist()
    [True, True, False]
    """
    order = np.lexsort((digests[1], digests[0]))
    ordered = digests[:, order]
    first = np.ones(len(order), dtype=np.bool_)
    first[order[1:]] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    return first


def _merged(older: _SortedRun, newer: _SortedRun) -> _SortedRun:
    """Merge two runs; for an id in both, the newer acceptance counts."""
    again = older.places(newer.digests)
    kept = np.ones(len(older), dtype=np.bool_)
    kept[again[again >= 0]] = False
    older = older.chosen(kept)
    place = np.searchsorted(older.digests[0], newer.digests[0]) + np.arange(len(newer))
    is_older = np.ones(len(older) + len(newer), dtype=np.bool_)
    is_older[place] = False
    result = _SortedRun(digests=np.empty((2, len(is_older)), np.uint64), accepted=np.empty(len(is_older), np.int64))
    result.digests[:, is_older], result.digests[:, place] = older.digests, newer.digests
    result.accepted[is_older], result.accepted[place] = older.accepted, newer.accepted
    return result
