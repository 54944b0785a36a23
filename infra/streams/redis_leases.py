"""Who reads which partition of a stream in Redis: leases that expire, shared out fairly among the members."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from skewless.infra.streams.redis_keys import EventKeys

# By the clock of the server, so that the clocks of the members do not matter.
_BEAT = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
_TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0
"""
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class Leases:
    """The leases of one member of a group; every method may raise RedisError.

    Args:
        lease_s: a member that was not heard of for so long has lost what it owned.
    """

    def __init__(self, keys: EventKeys, n_partitions: int, lease_s: float) -> None:
        self.me = secrets.token_hex(8)
        self._keys = keys
        self._n = n_partitions
        self._lease_ms = int(lease_s * 1_000)

    def beat(self, client: Any) -> int:  # noqa: ANN401 - redis-py's clients are untyped
        """Tell the group that this member lives; return how many partitions are its share."""
        members = client.eval(_BEAT, 1, self._keys.members, self.me, self._lease_ms)
        return fair_share(self._n, [member.decode() for member in members], self.me)

    def take(self, client: Any, index: int) -> bool:  # noqa: ANN401 - as above
        """Say whether a partition was free, and is this member's now."""
        return bool(client.eval(_TAKE, 1, self._keys.lease(index), self.me, self._lease_ms))

    def renew(self, client: Any, indices: Sequence[int]) -> set[int]:  # noqa: ANN401 - as above
        """Return which of some partitions are still this member's; those are for another term."""
        pipe = client.pipeline(transaction=False)
        for index in indices:
            pipe.execute_command("EVAL", _RENEW, 1, self._keys.lease(index), self.me, self._lease_ms)
        return {index for index, held in zip(indices, pipe.execute(), strict=True) if held} if indices else set()

    def confirmed(self, client: Any, epochs: dict[int, str]) -> set[int]:  # noqa: ANN401 - as above
        """Return which partitions are this member's at this moment, in the life that it knows of."""
        pipe = client.pipeline(transaction=False)
        for index in epochs:
            pipe.get(self._keys.lease(index))
            pipe.get(self._keys.epoch(index))
            pipe.exists(self._keys.stream(index))
        found = iter(pipe.execute())
        me = self.me.encode()
        return {
            index
            for index, epoch in epochs.items()
            if (next(found), next(found), next(found)) == (me, epoch.encode(), 1)
        }

    def release(self, client: Any, indices: Iterable[int]) -> None:  # noqa: ANN401 - as above
        """Let others take some partitions at once."""
        for index in indices:
            client.eval(_RELEASE, 1, self._keys.lease(index), self.me)

    def leave(self, client: Any) -> None:  # noqa: ANN401 - as above
        """Tell the group that this member is gone."""
        client.zrem(self._keys.members, self.me)


def fair_share(n_partitions: int, members: Sequence[str], me: str) -> int:
    """Return how many partitions are mine; all shares add up to the number of partitions.

    Who gets one more is decided by the order of the names, so that members who see the same group agree.

    >>> [fair_share(4, ["c", "a", "b"], me) for me in "abc"]
    [2, 1, 1]
    """
    n = len(members)
    if me not in members:
        return 0
    return n_partitions // n + (sorted(members).index(me) < n_partitions % n)
