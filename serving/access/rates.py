"""Token buckets: one for this worker alone, or one that all workers and servers share through Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from skewless.contract.errors import StoreError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.shared_rates import Demand, Grant
from skewless.serving.access.caller import Bucket

_CHUNK_S = 0.05  # of the rate, that a worker fetches at once: it asks Redis at most some 20 times a second and caller
_AWAY_S = 1.0  # until Redis is tried again after a failure
_log = EventLogger()


class TokenBucket:
    """Allows ``rate`` requests per second on average, and bursts of ``max(rate, 1)``.

    The state is the time at which the bucket will be full again (generic cell rate algorithm). So nothing has to refill
    it, and a caller below its rate costs one comparison.

    Args:
        rate: tokens per second, above 0.

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
        """Take a token and return 0, or return the seconds until one is available.

        Args:
            now: a monotonic clock, seconds.
        """
        if now >= self._full_at:
            self._full_at = now + self._period
            return 0.0
        wait = self._full_at - self._tolerance - now
        if wait > 0.0:
            return wait
        self._full_at += self._period
        return 0.0


class RateStore(Protocol):
    """The buckets that all servers share, as ``SharedRates`` in Redis."""

    def take(self, demands: Sequence[Demand]) -> list[Grant]:
        """Return a grant for each demand; waits for the network.

        Raises:
            StoreError: the store is unavailable.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class RateSharing:
    """Fetches the demands of this worker's buckets, in a thread: a request never waits for the store.

    Args:
        store: has the shared buckets.
        share: this worker's share of each rate while the store is unavailable.
        clock: as in the calls of ``take``.
    """

    def __init__(self, store: RateStore, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._share = share
        self._clock = clock
        self._demands: SimpleQueue[SharedBucket | None] = SimpleQueue()
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="rates", daemon=True)
        self._thread.start()

    def new_bucket(self, name: str, rate: float) -> Bucket:
        """Return the bucket of a caller.

        Args:
            name: unique in the project.
            rate: requests a second.
        """
        return SharedBucket(name, rate, TokenBucket(rate * self._share), self._demands.put)

    def close(self) -> None:
        """Stop the thread."""
        self._demands.put(None)
        self._thread.join(1.0)
        self._store.close()

    def _run(self) -> None:
        while (first := self._demands.get()) is not None:
            buckets = [first]
            try:
                while (bucket := self._demands.get_nowait()) is not None:
                    buckets.append(bucket)
            except Empty:
                pass
            else:
                return
            self.settle(buckets)

    def settle(self, buckets: Sequence[SharedBucket]) -> None:
        """Take what some buckets need out of the store, in one call, and give it to them."""
        demands = [bucket.demand() for bucket in buckets]
        try:
            grants = self._store.take(demands)
        except StoreError as error:
            if not self._is_away:
                _log.warning("rates_not_shared", error=str(error))
            self._is_away = True
            for bucket in buckets:
                bucket.use_own_share(self._clock() + _AWAY_S)
            return
        if self._is_away:
            _log.info("rates_shared")
        self._is_away = False
        for bucket, demand, grant in zip(buckets, demands, grants, strict=True):
            bucket.fill(demand, grant, self._clock())


class SharedBucket:
    """This worker's part of a bucket that all servers share.

    It holds requests that were granted in advance, and asks for more before they are used up. A request that finds
    none is served on credit: the next demand pays it. So a request does not wait, the average is kept exactly, and the
    credit of a worker is at most one chunk and a full bucket of its share of the rate.

    While the store is unavailable, the worker's share of the rate counts.

    Args:
        name: unique in the project.
        rate: requests a second.
        own_share: for the time without a store.
        ask: called with the bucket when it needs requests; must not wait.
    """

    __slots__ = ("_ask", "_away_until", "_chunk", "_closed_until", "_is_asking", "_left", "_own_share", "name", "rate")

    def __init__(self, name: str, rate: float, own_share: Bucket, ask: Callable[[SharedBucket], None]) -> None:
        self.name = name
        self.rate = rate
        self._own_share = own_share
        self._ask = ask
        self._chunk = max(1, int(rate * _CHUNK_S))
        self._left = 0
        self._is_asking = False
        self._closed_until = self._away_until = float("-inf")

    def take(self, now: float) -> float:
        """Take a request and return 0, or return the seconds until one is available."""
        if now < self._away_until:
            return self._own_share.take(now)
        if self._left <= 0:
            if now < self._closed_until:
                return self._closed_until - now
            # A burst, faster than the store answers: the share bounds the rest of the credit.
            if self._left <= -self._chunk and (wait := self._own_share.take(now)) > 0.0:
                return wait
        self._left -= 1
        if self._left <= self._chunk // 2 and not self._is_asking and now >= self._closed_until:
            self._is_asking = True
            self._ask(self)
        return 0.0

    def demand(self) -> Demand:
        """Return what the bucket needs now: payment of its credit, and a chunk."""
        served = max(0, -self._left)
        size = max(self.rate, 1.0)
        return Demand(name=self.name, rate=self.rate, size=size, served=served, wanted=self._chunk)

    def fill(self, demand: Demand, grant: Grant, now: float) -> None:
        """Add the grant for a demand. Another thread may take meanwhile: both change ``_left`` in one step."""
        self._left += demand.served + grant.requests
        if not grant.requests:
            self._closed_until = now + grant.wait_s
        self._is_asking = False

    def use_own_share(self, until: float) -> None:
        """Use the worker's share of the rate until a time."""
        self._away_until = until
        self._left = 0
        self._is_asking = False
