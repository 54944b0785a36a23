"""The scheduler's lease in Redis: one holder at a time, each with a fencing token above all before it.

A lease alone does not keep a paused holder from writing after its time; the token does, because whoever stores
something durable compares it (M. Kleppmann, "How to do distributed locking", 2016). Expiry is by the server's clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

from skewless.contract.errors import StoreError
from skewless.infra.online.address import RedisAddress
from skewless.infra.online.clients import close_client, open_client
from skewless.infra.online.failures import translated

# Asking again after a lost reply finds the lease in one's own name, and gets the same token.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return tonumber(redis.call('GET', KEYS[2])) end
if holder then return 0 end
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[2], string.format('%d', token))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return token
"""
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"
_ASKS_PER_TERM = 3
_RENEWALS_PER_TERM = 3


class Lease:
    """One candidate for the lease of a project's scheduler.

    Args:
        url: of Redis.
        project: whose scheduler.
        holder: a name that no other process has.
        ttl_s: seconds after which the lease of a holder that was not heard of is free.
    """

    def __init__(self, url: str, project: str, *, holder: str, ttl_s: float) -> None:
        self.holder = holder
        self.ttl_s = ttl_s
        self._url = url
        self._keys = (f"sk:{project}:{{scheduler}}:lease", f"sk:{project}:{{scheduler}}:token")
        self._ttl_ms = int(ttl_s * 1_000)

    def take(self, floor: int) -> int | None:
        """Return the fencing token if the lease was free, or this holder's already; None if somebody else has it.

        Args:
            floor: the token will be above it, even of a server that has lost its data.

        Raises:
            StoreError: Redis is away.
        """
        token = self._eval(_TAKE, 2, *self._keys, self.holder, floor, self._ttl_ms)
        return token or None

    def renew(self) -> bool:
        """Say whether the lease is still this holder's; it is for another term then.

        Raises:
            StoreError: Redis is away.
        """
        return bool(self._eval(_RENEW, 1, self._keys[0], self.holder, self._ttl_ms))

    def release(self) -> None:
        """Let others take the lease at once, if it is this holder's.

        Raises:
            StoreError: Redis is away.
        """
        self._eval(_RELEASE, 1, self._keys[0], self.holder)

    def held_by(self) -> str | None:
        """Return who holds the lease now.

        Raises:
            StoreError: Redis is away.
        """
        with translated(self._url):
            found = self._client.get(self._keys[0])
        return None if found is None else str(found.decode())

    def close(self) -> None:
        """Let go of the connection; the lease stays until it is released or expires."""
        if "_client" in self.__dict__:
            close_client(self._client)
            del self._client

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
        return open_client(RedisAddress.parse(self._url), self.ttl_s / _ASKS_PER_TERM)

    def _eval(self, script: str, n_keys: int, *words: str | int) -> int:
        with translated(self._url):
            return int(self._client.eval(script, n_keys, *words))


class Holding:
    """Keeps a lease inside a ``with`` block.

    ``is_held`` counts from before a renewal was asked for, by this machine's monotonic clock: it turns false before
    anybody else can have the lease, as long as the process is not paused; against pauses there is the fencing token.

    Args:
        on_renewed: called by the thread after each renewal.
        monotonic: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        on_renewed: Callable[[], None],
        taken_at: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._on_renewed = on_renewed
        self._monotonic = monotonic
        self._until = taken_at + lease.ttl_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have the lease now."""
        return self._monotonic() < self._until

    def _keep(self) -> None:
        while self.is_held and not self._stop.wait(self._lease.ttl_s / _RENEWALS_PER_TERM):
            self.renew()

    def renew(self) -> None:
        """Ask for another term; a store that does not answer is asked again next time."""
        asked_at = self._monotonic()
        try:
            is_ours = self._lease.renew()
        except StoreError:
            return
        self._until = asked_at + self._lease.ttl_s if is_ours else asked_at
        if is_ours:
            self._on_renewed()
