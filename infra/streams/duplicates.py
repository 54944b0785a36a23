"""Event ids that were seen a short while ago (SEMANTICS 4.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


class SeenIds:
    """The ids of one partition, remembered for a time after they came.

    Args:
        horizon_us: for how long, microseconds.
    """

    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us
        self._seen: set[str] = set()
        self._order: deque[tuple[int, str]] = deque()

    def horizon(self, horizon_us: int) -> None:
        """Remember for another time from now on."""
        self._horizon_us = horizon_us

    def remember(self, ids: Iterable[str | None], now_us: int) -> None:
        """Take note of ids that came at a moment, in order; of one that is forgotten by then, anew."""
        self._forget(now_us)
        for name in ids:
            if name is not None and name not in self._seen:
                self._seen.add(name)
                self._order.append((now_us, name))

    def repeated(self, ids: Sequence[str | None], now_us: int) -> list[int]:
        """Return the places of ids that are remembered, or stand earlier among these; nothing is remembered.

        >>> seen = SeenIds(10)
        >>> seen.remember(["a"], 0)
        >>> seen.repeated(["b", "a", "b", None, None], 10), seen.repeated(["a"], 11)
        ([1, 2], [])
        >>> seen.remember(["a"], 11)
        >>> seen.repeated(["a"], 21)
        [0]
        """
        self._forget(now_us)
        here: set[str] = set()
        places = []
        for i, name in enumerate(ids):
            if name is None:
                continue
            if name in self._seen or name in here:
                places.append(i)
            here.add(name)
        return places

    def _forget(self, now_us: int) -> None:
        while self._order and now_us - self._order[0][0] > self._horizon_us:
            self._seen.discard(self._order.popleft()[1])
