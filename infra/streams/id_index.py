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
_SIZE_FACTOR = 2


@dataclass(frozen=True, kw_only=True)
class _SortedRun:
    """Distinct digests, sorted by their first halves, and the times of acceptance of their ids, microseconds."""

    digests: Digests
    accepted: Int64Array

    def __len__(self) -> int:
        return len(self.accepted)

    @classmethod
    def of(cls, digests: Digests, accepted: Int64Array) -> _SortedRun:
        # By digest, then by time: the last of equal digests is the latest acceptance.
        order = np.lexsort((accepted, digests[1], digests[0]))
        digests, accepted = digests[:, order], accepted[order]
        last = np.append((digests[:, 1:] != digests[:, :-1]).any(axis=0), [True] * bool(len(accepted)))
        return cls(digests=digests[:, last], accepted=accepted[last])

    def select(self, rows: BoolArray) -> _SortedRun:
        return self if rows.all() else _SortedRun(digests=self.digests[:, rows], accepted=self.accepted[rows])

    def indices(self, digests: Digests) -> Int64Array:
        """Return the indices of digests, which must be sorted by their first halves; -1: not in this run."""
        indices = np.full(digests.shape[1], -1, dtype=np.int64)
        at = np.searchsorted(self.digests[0], digests[0])
        remaining = np.flatnonzero(at < len(self))
        while len(remaining):
            remaining = remaining[self.digests[0, at[remaining]] == digests[0, remaining]]
            same = self.digests[1, at[remaining]] == digests[1, remaining]
            indices[remaining[same]] = at[remaining[same]]
            remaining = remaining[~same]  # another digest with the same first half: continue with the next one
            at[remaining] += 1
            remaining = remaining[at[remaining] < len(self)]
        return indices


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

        >>> index, a = IdIndex(10), digest_ids(["a"])
        >>> index.add(a, 0)
        >>> [index.find_known(a, now).tolist() for now in (10, 11)]
        [[True], [False]]
        >>> index.add(a, 11)
        >>> index.find_known(a, 21).tolist()
        [True]
        """
        if not digests.shape[1]:
            return
        times = np.broadcast_to(np.asarray(accepted_us, dtype=np.int64), digests.shape[1:])
        self._runs.append(_SortedRun.of(digests, times))
        since_us = self._horizon_start(int(times.max()))
        while len(self._runs) > 1 and len(self._runs[-2]) <= _SIZE_FACTOR * len(self._runs[-1]):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(_merge(*(run.select(run.accepted >= since_us) for run in (older, newer))))

    def find_known(self, digests: Digests, now_us: int) -> BoolArray:
        """Return which ids were accepted within the horizon before ``now_us``, inclusive; shape ``(n,)``."""
        is_known = np.zeros(digests.shape[1], dtype=np.bool_)
        order = np.argsort(digests[0])  # sorted look-ups reuse cache lines
        ordered = digests[:, order]
        for run in self._runs:
            indices = run.indices(ordered)
            is_known[order[indices >= 0]] |= run.accepted[indices[indices >= 0]] >= self._horizon_start(now_us)
        return is_known

    def _horizon_start(self, now_us: int) -> int:
        return -(2**63) if self._horizon_us is None else now_us - self._horizon_us


def digest_ids(ids: Iterable[str]) -> Digests:
    """Return 128-bit digests of ids; collisions do not occur in practice."""
    joined = b"".join(blake2b(name.encode(), digest_size=16).digest() for name in ids)
    return np.ascontiguousarray(np.frombuffer(joined, dtype="<u8").reshape(-1, 2).T)


def mark_first(digests: Digests) -> BoolArray:
    """Return which digests are the first occurrence among the given ones.

    >>> mark_first(digest_ids(["b", "a", "b"])).tolist()
    [True, True, False]
    """
    order = np.lexsort((digests[1], digests[0]))
    ordered = digests[:, order]
    first = np.ones(len(order), dtype=np.bool_)
    first[order[1:]] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    return first


def _merge(older: _SortedRun, newer: _SortedRun) -> _SortedRun:
    """Merge two runs; for an id in both, the newer acceptance counts."""
    duplicate_indices = older.indices(newer.digests)
    is_kept = np.ones(len(older), dtype=np.bool_)
    is_kept[duplicate_indices[duplicate_indices >= 0]] = False
    older = older.select(is_kept)
    place = np.searchsorted(older.digests[0], newer.digests[0]) + np.arange(len(newer))
    is_older = np.ones(len(older) + len(newer), dtype=np.bool_)
    is_older[place] = False
    result = _SortedRun(digests=np.empty((2, len(is_older)), np.uint64), accepted=np.empty(len(is_older), np.int64))
    result.digests[:, is_older], result.digests[:, place] = older.digests, newer.digests
    result.accepted[is_older], result.accepted[place] = older.accepted, newer.accepted
    return result
