"""What batches read from the online store: behind a circuit breaker, watched for losses, perhaps from a cache."""

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
from skewless.serving.prediction.feature_cache import FeatureCache, least

_FEW = 8  # keys, of one request


class StoredRows(NamedTuple):
    """What stood in the store.

    Args:
        values: by key; None: nothing.
        marker_status: what the markers say of them.
        read_start: the clock when the oldest value was read, microseconds.
        read_end: the clock when all were there.
    """

    values: Mapping[bytes, bytes | None]
    marker_status: MarkerStatus
    read_start: int
    read_end: int


class FeatureReads:
    """Reads values and the markers that vouch for them, in one round trip.

    Args:
        marker_history: knows how far the markers were.
        cache: None: every value is read when it is asked for.
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
            StoreError: the store did not answer, or has not answered for a while and is not asked.
        """
        if self._cache is None:
            return await self._fetch(keys, markers, now_us)
        held, oldest, watermarks = self._cache.get(keys, now_us)
        if len(held) == len(keys) and watermarks.keys() >= set(markers):
            return StoredRows(
                values=held, marker_status=MarkerStatus(frozenset(), watermarks), read_start=oldest, read_end=now_us
            )
        fetched = await self._fetch([key for key in keys if key not in held], markers, now_us)
        marker_status = fetched.marker_status
        if not marker_status.lost:
            self._cache.put(fetched.values, marker_status.watermarks, now_us)
        if held:
            marker_status = MarkerStatus(marker_status.lost, least([watermarks, marker_status.watermarks]))
        return StoredRows(
            values={**held, **fetched.values}, marker_status=marker_status, read_start=oldest, read_end=fetched.read_end
        )

    async def _fetch(self, keys: Sequence[bytes], markers: Sequence[str], now_us: int) -> StoredRows:
        if not self._breaker.allows():
            raise StoreError("the online store", "did not answer lately and is left alone for a moment", fix="wait")
        reply: asyncio.Future[RowsAndMarkers] = asyncio.get_running_loop().create_future()
        self._online.start_read(keys, markers, partial(settle, reply))
        if len(keys) <= _FEW:
            self._online.busy_poll()
        try:
            rows, found = await reply
        except StoreError:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return StoredRows(
            values=dict(zip(keys, rows, strict=True)),
            marker_status=self._marker_history.check_markers(markers, found),
            read_start=now_us,
            read_end=self._clock.now_us(),
        )
