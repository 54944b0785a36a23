"""Cache of the online store's bytes. Only bytes are cached: ttl, status and windows are evaluated at each t."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from skewless.serving.metrics.metrics import Metrics


class CachedValues(NamedTuple):
    """Cached values that are fresh enough.

    Args:
        values: by key; None: the store has no value.
        oldest_us: read time of the oldest value, microseconds; without a value: now.
        watermarks: by marker, the minimum over the reads that the values come from.
    """

    values: dict[bytes, bytes | None]
    oldest_us: int
    watermarks: dict[str, int]


class FeatureCache:
    """Cache values of keys for a limited time.

    Args:
        max_age_us: maximum age of a usable value, microseconds.
        entries: maximum number of values; the oldest is evicted first.

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
        self._max_entries = entries
        self._entries: dict[bytes, tuple[bytes | None, int, Mapping[str, int]]] = {}

    def get(self, keys: Collection[bytes], now_us: int) -> CachedValues:
        """Return the cached values that are fresh enough."""
        oldest, values, min_read_us = now_us, {}, now_us - self._max_age_us
        read_with: dict[int, Mapping[str, int]] = {}
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None and entry[1] >= min_read_us:
                values[key] = entry[0]
                oldest = min(oldest, entry[1])
                # Values of one read share one mapping: by identity, few remain to be compared.
                read_with[id(entry[2])] = entry[2]
        self._hits.inc(len(values))
        self._misses.inc(len(keys) - len(values))
        return CachedValues(values, oldest, min_watermarks(read_with.values()))

    def put(self, values: Mapping[bytes, bytes | None], watermarks: Mapping[str, int], read_us: int) -> None:
        """Store values that were in the store at ``read_us`` or later, with the watermarks of the same read."""
        for key, value in values.items():
            # Removed first, so that the key moves to the end: eviction takes the first key, which must be the oldest.
            self._entries.pop(key, None)
            self._entries[key] = (value, read_us, watermarks)
        while len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]


def min_watermarks(watermarks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the minimum watermark of each marker.

    >>> min_watermarks([{"m": 5, "n": 7}, {"m": 3}])
    {'m': 3, 'n': 7}
    """
    minimums: dict[str, int] = {}
    for read in watermarks:
        for name, watermark in read.items():
            minimums[name] = min(watermark, minimums.get(name, watermark))
    return minimums
