"""Which committed messages of a partition may go, so that about a given number of them stays."""

from __future__ import annotations

from collections import deque


class ReadPositions:
    """Remembers how many messages were read up to some positions.

    >>> kept = ReadPositions(2)
    >>> for n, following in ((2, 20), (1, 30), (3, 60)):
    ...     kept.read(n, following)
    >>> [kept.floor(committed) for committed in (20, 30, 60, 60)]
    [None, None, 30, 30]

    Args:
        keep: how many committed messages stay at least.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._n = 0
        self._pending: deque[tuple[int, int]] = deque()
        self._committed: deque[tuple[int, int]] = deque([(0, 0)])

    def read(self, n: int, following: int) -> None:
        """Note that ``n`` more messages were read, and the position that follows them."""
        self._n += n
        self._pending.append((self._n, following))

    def floor(self, committed: int) -> int | None:
        """Return the position below which messages may go; None: nothing may."""
        while self._pending and self._pending[0][1] <= committed:
            self._committed.append(self._pending.popleft())
        most = self._committed[-1][0] - self._keep
        while len(self._committed) > 1 and self._committed[1][0] <= most:
            self._committed.popleft()
        return self._committed[0][1] or None
