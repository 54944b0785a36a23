"""What the online store said a moment ago: bytes alone, so ttl, status and windows are evaluated at each t anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from skewless.serving.metrics.metrics import Metrics


class CachedValues(NamedTuple):
    """Values that are fresh enough.

    Args:
        values: by key.
        oldest_us: when the oldest of them was read; now, if there is none.
        watermarks: by marker, the least that was read with one of them.
    """

    values: dict[bytes, bytes | None]
    oldest_us: int
    watermarks: dict[str, int]


class FeatureCache:
    """Keeps the values of keys for a bounded time.

    Args:
        max_age_us: how old a value may be that is used, microseconds.
        entries: values kept; the oldest goes first.

    >>> from skewless.serving.metrics.metrics import Metrics
    >>> cache = FeatureCache(max_age_us=10, entries=2, metrics=Metrics())
    >>> cache.put({b"a": b"1", b"b": None}, {"m": 99}, read_us=100)
    >>> cache.get([b"a", b"b", b"c"], now_us=110)
    CachedValues(values={b'a': b'1', b'b': None}, oldest_us=100, watermarks={'m': 99})
    >>> cache.get([b"a"], now_us=111)
    CachedValues(values={}, oldest_us=111, watermarks={})
    """

    def __init__(self, *, max_age_us: int, entries: int, metrics: Metrics) -> None:
        self._hits, self._misses = metrics.hits("feature"), metrics.misses("feature")
        self._max_age_us = max_age_us
        self._most = entries
        self._held: dict[bytes, tuple[bytes | None, int, Mapping[str, int]]] = {}

    def get(self, keys: Collection[bytes], now_us: int) -> CachedValues:
        """Return the values that are fresh enough."""
        oldest, found, since = now_us, {}, now_us - self._max_age_us
        read_with: dict[int, Mapping[str, int]] = {}
        for key in keys:
            held = self._held.get(key)
            if held is not None and held[1] >= since:
                found[key] = held[0]
                oldest = min(oldest, held[1])
                read_with[id(held[2])] = held[2]
        self._hits.inc(len(found))
        self._misses.inc(len(keys) - len(found))
        return CachedValues(found, oldest, least(read_with.values()))

    def put(self, values: Mapping[bytes, bytes | None], watermarks: Mapping[str, int], read_us: int) -> None:
        """Keep values that stood in the store at ``read_us`` or later, with the watermarks that were read with them."""
        for key, value in values.items():
            self._held.pop(key, None)
            self._held[key] = (value, read_us, watermarks)
        while len(self._held) > self._most:
            del self._held[next(iter(self._held))]


def least(watermarks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return by marker the least of some watermarks.

    >>> least([{"m": 5, "n": 7}, {"m": 3}])
    {'m': 3, 'n': 7}
    """
    found: dict[str, int] = {}
    for each in watermarks:
        for name, moment in each.items():
            found[name] = min(moment, found.get(name, moment))
    return found
