"""What the online store said a moment ago: bytes alone, so ttl, status and windows are evaluated at each t anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from serving.metrics.metrics import Metrics


class FeatureCache:
    """Keeps the values of keys for a bounded time.

    Args:
        max_age_us: how old a value may be that is used, microseconds.
        entries: values kept; the oldest goes first.

    >>> from serving.metrics.metrics import Metrics
    >>> cache = FeatureCache(max_age_us=10, entries=2, metrics=Metrics())
    >>> cache.put({b"a": b"1", b"b": None}, read_us=100)
    >>> cache.get([b"a", b"b", b"c"], now_us=110)
    ({b'a': b'1', b'b': None}, 100)
    >>> cache.get([b"a"], now_us=111)
    ({}, 111)
    """

    def __init__(self, *, max_age_us: int, entries: int, metrics: Metrics) -> None:
        self._hits, self._misses = metrics.hits("feature"), metrics.misses("feature")
        self._max_age_us = max_age_us
        self._most = entries
        self._held: dict[bytes, tuple[bytes | None, int]] = {}

    def get(self, keys: Collection[bytes], now_us: int) -> tuple[dict[bytes, bytes | None], int]:
        """Return the values that are fresh enough, and when the oldest of them was read (now, if there is none)."""
        oldest, found, since = now_us, {}, now_us - self._max_age_us
        for key in keys:
            held = self._held.get(key)
            if held is not None and held[1] >= since:
                found[key] = held[0]
                oldest = min(oldest, held[1])
        self._hits.inc(len(found))
        self._misses.inc(len(keys) - len(found))
        return found, oldest

    def put(self, values: Mapping[bytes, bytes | None], read_us: int) -> None:
        """Keep values that stood in the store at ``read_us`` or later."""
        for key, value in values.items():
            self._held.pop(key, None)
            self._held[key] = (value, read_us)
        while len(self._held) > self._most:
            del self._held[next(iter(self._held))]
