"""Feature reads of batches: one round trip, behind a circuit breaker, checked for lost writes, optionally cached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import NamedTuple

from skewless.contract.clock import Clock
from skewless.contract.errors import StoreError
from skewless.infra.reads.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.reads.online.port import OnlineReader, RowsAndMarkers, settle
from skewless.serving.metrics.metrics import Metrics

_FEW_KEYS = 8  # a typical single request


class BreakerState(IntEnum):
    """State of a circuit breaker; the metric shows its number."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(kw_only=True)
class Breaker:
    """Open after failures in a row; after a pause, one trial call decides whether to close again.

    Args:
        failures: failures in a row that open the breaker.
        seconds: how long it stays open.
        on_trip: called when it opens.
        now: a monotonic clock, in seconds.

    >>> breaker = Breaker(failures=2, seconds=1.0, now=lambda: 0.0)
    >>> breaker.record_failure(), breaker.allow_call(), breaker.record_failure(), breaker.allow_call()
    (None, True, None, False)
    """

    failures: int
    seconds: float
    on_trip: Callable[[], None] = lambda: None
    now: Callable[[], float] = time.monotonic
    state: BreakerState = field(default=BreakerState.CLOSED, init=False)
    _failures_in_row: int = field(default=0, init=False)
    _open_until: float = field(default=0.0, init=False)

    def allow_call(self) -> bool:
        """Return whether the caller may try; after the pause, the first caller makes the trial call."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.now() < self._open_until:
            return False
        # The trial call may never report its result. Another one is allowed after one more pause.
        self.state, self._open_until = BreakerState.HALF_OPEN, self.now() + self.seconds
        return True

    def record_success(self) -> None:
        """Close the breaker."""
        self.state, self._failures_in_row = BreakerState.CLOSED, 0

    def record_failure(self) -> None:
        """Count a failure; open the breaker if it was one too many."""
        self._failures_in_row += 1
        if self.state is BreakerState.HALF_OPEN or self._failures_in_row >= self.failures:
            if self.state is not BreakerState.OPEN:
                self.on_trip()
            self.state, self._open_until = BreakerState.OPEN, self.now() + self.seconds


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


class StoredRows(NamedTuple):
    """Values of keys and the status of the markers that were read with them.

    Args:
        values: by key; None: the store has no value.
        marker_status: the views whose rows are incomplete, and the watermarks.
        read_start: time before the oldest value was read, microseconds.
        read_end: time after the last value was read, microseconds.
    """

    values: Mapping[bytes, bytes | None]
    marker_status: MarkerStatus
    read_start: int
    read_end: int


@dataclass(frozen=True, kw_only=True)
class FeatureReads:
    """Read values and their markers in one round trip.

    Args:
        marker_history: the history of the markers, which shows whether the store lost writes.
        cache: None: every request reads from the store.
    """

    online: OnlineReader
    clock: Clock
    marker_history: MarkerHistory
    breaker: Breaker
    cache: FeatureCache | None = None

    async def read(self, keys: Sequence[bytes], markers: Sequence[str], now_us: int) -> StoredRows:
        """Return the values of distinct keys.

        Raises:
            StoreError: the store did not answer, or the circuit breaker is open.
        """
        if self.cache is None:
            return await self._fetch(keys, markers, now_us)
        cached_values, oldest, watermarks = self.cache.get(keys, now_us)
        # The cached reads must also have brought the markers of all views of this batch.
        if len(cached_values) == len(keys) and watermarks.keys() >= set(markers):
            return StoredRows(
                values=cached_values,
                marker_status=MarkerStatus(frozenset(), watermarks),
                read_start=oldest,
                read_end=now_us,
            )
        fetched = await self._fetch([key for key in keys if key not in cached_values], markers, now_us)
        standing = fetched.marker_status
        # A hit reports no lost writes, so rows of an incomplete view must not be cached (SEMANTICS 4.5).
        if not standing.lost:
            self.cache.put(fetched.values, standing.watermarks, now_us)
        if cached_values:
            # A reply has read everything up to its watermark (SEMANTICS 8.4), so the oldest of its reads counts.
            standing = MarkerStatus(standing.lost, min_watermarks([watermarks, standing.watermarks]))
        return StoredRows(
            values={**cached_values, **fetched.values},
            marker_status=standing,
            read_start=oldest,
            read_end=fetched.read_end,
        )

    async def _fetch(self, keys: Sequence[bytes], markers: Sequence[str], now_us: int) -> StoredRows:
        if not self.breaker.allow_call():
            raise StoreError(
                "the online store",
                "has an open circuit breaker because reads failed",
                fix="retry in a second, or check the store",
            )
        reply: asyncio.Future[RowsAndMarkers] = asyncio.get_running_loop().create_future()
        self.online.start_read(keys, markers, partial(settle, reply))
        if len(keys) <= _FEW_KEYS:
            # Most replies to single requests arrive within microseconds: polling the socket saves a turn of the loop.
            self.online.busy_poll()
        try:
            rows, marks = await reply
        except StoreError:
            self.breaker.record_failure()
            raise
        self.breaker.record_success()
        return StoredRows(
            values=dict(zip(keys, rows, strict=True)),
            marker_status=self.marker_history.check_markers(markers, marks),
            read_start=now_us,
            read_end=self.clock.now_us(),
        )
