"""Token buckets: how often somebody may ask."""

from __future__ import annotations


class TokenBucket:
    """Lets ``rate`` requests a second pass on average, and ``max(rate, 1)`` at once after a rest.

    Kept as the moment at which the bucket is full again (the generic cell rate algorithm), so that nothing has to be
    filled up: one comparison decides for whoever asks seldom.

    Args:
        rate: tokens a second, above 0.

    >>> bucket = TokenBucket(2.0)
    >>> [bucket.take(10.0), bucket.take(10.0), bucket.take(10.0), bucket.take(10.5)]
    [0.0, 0.0, 0.5, 0.0]
    """

    __slots__ = ("_full_at", "_period", "_tolerance")

    def __init__(self, rate: float) -> None:
        self._period = 1.0 / rate
        self._tolerance = self._period * (max(rate, 1.0) - 1.0)
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take a token and return 0, or take none and return the seconds until there is one.

        Args:
            now: seconds on a clock that never goes back.
        """
        if now >= self._full_at:
            self._full_at = now + self._period
            return 0.0
        wait = self._full_at - self._tolerance - now
        if wait > 0.0:
            return wait
        self._full_at += self._period
        return 0.0
