"""The scheduler lease in Redis; it expires by the server's clock."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from skewless.infra.online.address import RedisAddress
from skewless.infra.online.clients import close_client, open_client
from skewless.infra.online.failures import translate_errors

# After a lost reply, a second request finds the lease in the holder's own name and gets the same token.
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
_ASKS_PER_TERM = 3  # the timeout of a command is a third of the term


class RedisLease:
    """Implements ``StoreLease`` with two keys: the holder's name with an expiry, and the last fencing token."""

    def __init__(self, url: str, project: str, holder: str, ttl_s: float) -> None:
        self.holder = holder
        self.ttl_s = ttl_s
        self._url = url
        self._keys = (f"sk:{project}:{{scheduler}}:lease", f"sk:{project}:{{scheduler}}:token")
        self._ttl_ms = int(ttl_s * 1_000)

    def take(self, floor: int) -> int | None:
        """Return the fencing token if the lease was free or is this holder's; None if another holder has it."""
        token = self._eval(_TAKE, 2, *self._keys, self.holder, floor, self._ttl_ms)
        return token or None

    def renew(self) -> bool:
        """Renew the lease if this holder still has it; return whether it has."""
        return bool(self._eval(_RENEW, 1, self._keys[0], self.holder, self._ttl_ms))

    def release(self) -> None:
        """Give up the lease if it is this holder's."""
        self._eval(_RELEASE, 1, self._keys[0], self.holder)

    def read_holder(self) -> str | None:
        """Return the name of the current holder, or None."""
        with translate_errors(self._url):
            holder = self._client.get(self._keys[0])
        return None if holder is None else str(holder.decode())

    def close(self) -> None:
        """Close the connection."""
        if "_client" in self.__dict__:
            close_client(self._client)
            del self._client

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
        return open_client(RedisAddress.parse(self._url), self.ttl_s / _ASKS_PER_TERM)

    def _eval(self, script: str, n_keys: int, *words: str | int) -> int:
        with translate_errors(self._url):
            return int(self._client.eval(script, n_keys, *words))
