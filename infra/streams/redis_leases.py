"""Assigns partitions of a Redis stream to workers with expiring leases, in fair shares."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from skewless.infra.streams.redis_keys import EventKeys

# Uses the server's clock, so that the clocks of the members do not matter.
_HEARTBEAT = """
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


class PartitionLeases:
    """The leases of one group member; every method may raise RedisError.

    Args:
        keys: of the stream.
        n_partitions: number of partitions.
        lease_s: seconds without a heartbeat after which a member loses its partitions.
    """

    def __init__(self, keys: EventKeys, n_partitions: int, lease_s: float) -> None:
        self.member_id = secrets.token_hex(8)
        self._keys = keys
        self._n = n_partitions
        self._lease_ms = int(lease_s * 1_000)

    def send_heartbeat(self, client: Any) -> int:  # noqa: ANN401 - redis-py's clients are untyped
        """Record that this member is alive; return its share, a number of partitions."""
        members = client.eval(_HEARTBEAT, 1, self._keys.members, self.member_id, self._lease_ms)
        return fair_share(self._n, [member.decode() for member in members], self.member_id)

    def acquire(self, client: Any, index: int) -> bool:  # noqa: ANN401 - as above
        """Try to lease a partition; return whether it is this member's now."""
        return bool(client.eval(_TAKE, 1, self._keys.lease(index), self.member_id, self._lease_ms))

    def renew(self, client: Any, indices: Sequence[int]) -> set[int]:  # noqa: ANN401 - as above
        """Renew the leases that this member still has; return their partitions."""
        pipe = client.pipeline(transaction=False)
        for index in indices:
            pipe.execute_command("EVAL", _RENEW, 1, self._keys.lease(index), self.member_id, self._lease_ms)
        return {index for index, held in zip(indices, pipe.execute(), strict=True) if held} if indices else set()

    def find_confirmed(self, client: Any, epochs: dict[int, str]) -> set[int]:  # noqa: ANN401 - as above
        """Return the partitions that this member owns now and whose epoch is still the given one."""
        pipe = client.pipeline(transaction=False)
        for index in epochs:
            pipe.get(self._keys.lease(index))
            pipe.get(self._keys.epoch(index))
            pipe.exists(self._keys.stream(index))
        values = iter(pipe.execute())
        member_id = self.member_id.encode()
        return {
            index
            for index, epoch in epochs.items()
            # Three replies per partition, in the order of the pipeline.
            if (next(values), next(values), next(values)) == (member_id, epoch.encode(), 1)
        }

    def release(self, client: Any, indices: Iterable[int]) -> None:  # noqa: ANN401 - as above
        """Release partitions, so that other members can own them at once."""
        for index in indices:
            client.eval(_RELEASE, 1, self._keys.lease(index), self.member_id)

    def leave(self, client: Any) -> None:  # noqa: ANN401 - as above
        """Remove this member from the group."""
        client.zrem(self._keys.members, self.member_id)


def fair_share(n_partitions: int, members: Sequence[str], member_id: str) -> int:
    """Return the number of partitions for ``member_id``; the shares of all members add up to the number of partitions.

    The order of names decides who gets one more, so that members with the same view of the group agree.

    >>> [fair_share(4, ["c", "a", "b"], member_id) for member_id in "abc"]
    [2, 1, 1]
    """
    n = len(members)
    if member_id not in members:
        return 0
    return n_partitions // n + (sorted(members).index(member_id) < n_partitions % n)
