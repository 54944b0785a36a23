"""Feature reads of batches: one round trip, behind a circuit breaker, checked for lost writes, optionally cached."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from skewless.contract.clock import Clock
from skewless.contract.errors import StoreError
from skewless.infra.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.online.port import OnlineReader, RowsAndMarkers, settle
from skewless.serving.prediction.breaker import Breaker
from skewless.serving.prediction.feature_cache import FeatureCache, min_watermarks

_FEW_KEYS = 8  # a typical single request


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


class FeatureReads:
    """Read values and their markers in one round trip.

    Args:
        marker_history: the history of the markers, which shows whether the store lost writes.
        cache: None: every request reads from the store.
    """

    def __init__(
        self,
        *,
        online: OnlineReader,
        clock: Clock,
        marker_history: MarkerHistory,
        breaker: Breaker,
        cache: FeatureCache | None = None,
    ) -> None:
        self._online = online
        self._clock = clock
        self._marker_history = marker_history
        self._breaker = breaker
        self._cache = cache

    async def read(self, keys: Sequence[bytes], markers: Sequence[str], now_us: int) -> StoredRows:
        """Return the values of distinct keys.

        Raises:
            StoreError: the store did not answer, or the circuit breaker is open.
        """
        if self._cache is None:
            return await self._fetch(keys, markers, now_us)
        cached_values, oldest, watermarks = self._cache.get(keys, now_us)
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
            self._cache.put(fetched.values, standing.watermarks, now_us)
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
        if not self._breaker.allow_call():
            raise StoreError(
                "the online store",
                "has an open circuit breaker because reads failed",
                fix="retry in a second, or check the store",
            )
        reply: asyncio.Future[RowsAndMarkers] = asyncio.get_running_loop().create_future()
        self._online.start_read(keys, markers, partial(settle, reply))
        if len(keys) <= _FEW_KEYS:
            # Most replies to single requests arrive within microseconds: polling the socket saves a turn of the loop.
            self._online.busy_poll()
        try:
            rows, marks = await reply
        except StoreError:
            self._breaker.record_failure()
            raise
        self._breaker.record_success()
        return StoredRows(
            values=dict(zip(keys, rows, strict=True)),
            marker_status=self._marker_history.check_markers(markers, marks),
            read_start=now_us,
            read_end=self._clock.now_us(),
        )
