"""Reading many keys of a cluster at once, also while slots move from node to node."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis.exceptions import AskError, RedisError, ResponseError

from infra.online.cluster_servers import key_slot
from infra.online.markers import TAG_SLOTS, marker_key_of
from infra.online.resp import command

Reply = bytes | None | Exception


class ClusterReader:
    """Reads through the connections of redis-py's asynchronous client, which renews its map of slots."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self._client = client

    async def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, in order, from one round trip to every node; None: no value.

        The keys of a slot that is on its way to another node are asked for again, each by itself.

        Raises:
            RedisError: a node stays away.
        """
        await self._client.initialize()
        places: defaultdict[Any, list[int]] = defaultdict(list)
        for i, key in enumerate(keys):
            places[self._node(key_slot(key))].append(i)
        asked = [_exchange(node, [command(b"GET", keys[i]) for i in mine]) for node, mine in places.items()]
        found: list[bytes | None] = [None] * len(keys)
        for mine, replies in zip(places.values(), await asyncio.gather(*asked), strict=True):
            for i, reply in zip(mine, replies, strict=True):
                found[i] = await self._settled(keys[i], reply) if isinstance(reply, Exception) else reply
        return found

    async def marker_keys(self, names: Sequence[str]) -> list[list[bytes]]:
        """Return, for each name, the keys of one marker on each master: it vouches for all rows of its server."""
        await self._client.initialize()
        parts = {self._node(slot).name: part for part, slot in enumerate(TAG_SLOTS)}.values()
        return [[marker_key_of(name, part) for part in parts] for name in names]

    def _node(self, slot: int) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
        return self._client.nodes_manager.get_node_from_slot(slot)

    async def _settled(self, key: bytes, error: Exception) -> bytes | None:
        if isinstance(error, AskError):
            # On one connection: redis-py itself asks leave on one and may read on another.
            node = self._client.get_node(host=error.host, port=error.port)
            _, reply = await _exchange(node, [command(b"ASKING"), command(b"GET", key)])
            if not isinstance(reply, Exception):
                return reply
        value: bytes | None = await self._client.get(key)
        return value


async def _exchange(node: Any, calls: Sequence[bytes]) -> list[Reply]:  # noqa: ANN401 - redis-py's clients are untyped
    """Send calls to a node at once; return the reply to each, or the error that came for it."""
    connection = node.acquire_connection()
    try:
        await node.disconnect_if_needed(connection)
        await connection.send_packed_command(b"".join(calls), check_health=False)
        return [await _reply(connection) for _ in calls]
    except (RedisError, OSError) as error:
        await connection.disconnect(nowait=True)
        return [error] * len(calls)
    except BaseException:
        # Cancelled: replies may be outstanding.
        await connection.disconnect(nowait=True)
        raise
    finally:
        node.release(connection)


async def _reply(connection: Any) -> Reply:  # noqa: ANN401 - redis-py's clients are untyped
    try:
        value: bytes | None = await connection.read_response()
    except ResponseError as error:
        return error
    return value
