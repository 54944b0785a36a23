"""redis-py's clients for an address: of one server, of a cluster, of a master that sentinels name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from skewless.contract.errors import SkewlessError
from skewless.infra.online.address import RedisAddress
from skewless.infra.online.port import OnConnect
from skewless.infra.online.resp import RespConnection

_CONNECT_S = 5.0
_SENTINEL = "sentinel_"
# A connection may be to the old master. With redis-py's own patience a request would wait for half a minute.
_ONCE_MORE = 1


def open_client(address: RedisAddress, timeout_s: float, on_connect: Callable[[], None] | None = None) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
    """Return a blocking client; that of a cluster connects at once, the others when they are used.

    Args:
        on_connect: called for each connection that was made, before it is used.

    Raises:
        RedisError: a cluster does not answer.
    """
    options = _timed(timeout_s)
    if on_connect is not None:
        options["redis_connect_func"] = partial(_connected, on_connect, address.kind != "cluster")
    if address.kind == "server":
        return redis.Redis.from_url(address.url, **options)
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **_data_options(address), **options)
    options["retry"] = Retry(NoBackoff(), _ONCE_MORE)
    sentinel: Any = Sentinel(address.hosts, sentinel_kwargs=_sentinel_options(address) | options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(address.service, **_data_options(address), **options)


def open_async_client(address: RedisAddress, timeout_s: float) -> Any:  # noqa: ANN401 - as above
    """Return an asynchronous client of one server, or of the master that sentinels name; it connects when it is used.

    It does not try again what has failed: whoever uses it knows better when.
    """
    options = _timed(timeout_s) | {"retry": AsyncRetry(NoBackoff(), 0)}
    if address.kind == "server":
        return redis.asyncio.Redis.from_url(address.url, **options)
    sentinel = AsyncSentinel(address.hosts, sentinel_kwargs=_sentinel_options(address) | options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(address.service, **_data_options(address), **options)


def open_async_node(address: RedisAddress, host: str, port: int, timeout_s: float) -> Any:  # noqa: ANN401 - as above
    """Return an asynchronous client of one node of a cluster, which tries nothing again either."""
    options = _timed(timeout_s) | {"retry": AsyncRetry(NoBackoff(), 0)}
    return redis.asyncio.Redis(host=host, port=port, **_data_options(address), **options)


def close_client(client: Any) -> None:  # noqa: ANN401 - as above
    """Close a blocking client, and those of the sentinels that it asks."""
    client.close()
    for sentinel in _sentinels(client):
        sentinel.close()


async def close_async_client(client: Any) -> None:  # noqa: ANN401 - as above
    """Close an asynchronous client, and those of the sentinels that it asks."""
    await client.aclose()
    for sentinel in _sentinels(client):
        await sentinel.aclose()


async def dial(client: Any, on_connect: OnConnect | None, protocol: asyncio.Protocol) -> asyncio.StreamWriter:  # noqa: ANN401 - as above
    """Open a connection of an asynchronous client, made known as its address says, and hand it to a protocol.

    From then on the client knows nothing of it. That the writer lives keeps it open.

    Args:
        on_connect: awaited once the connection stands; None: nothing is to be done.

    Raises:
        RedisError: it cannot be opened, or the server refuses user, password or database.
        SkewlessError: what ``on_connect`` raised.
    """
    connection = client.connection_pool.make_connection()
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    writer: asyncio.StreamWriter = connection._writer  # noqa: SLF001 - it has no public name
    connection._reader = connection._writer = None  # noqa: SLF001 - as above
    writer.transport.set_protocol(protocol)
    try:
        if on_connect is not None:
            await on_connect()
    except BaseException:
        writer.transport.abort()
        raise
    return writer


@contextmanager
def lent(client: Any) -> Iterator[RespConnection]:  # noqa: ANN401 - as above
    """Lend one connection of a blocking client of one server.

    After an error it is closed, since a reply may be outstanding.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _connected(on_connect: Callable[[], None], introduce: bool, connection: Any) -> None:  # noqa: ANN401, FBT001 - as above
    """Make a connection known, which redis-py's client of a cluster has done already, and tell of it."""
    if introduce:
        connection.on_connect()
    try:
        on_connect()
    except SkewlessError:
        connection.disconnect()
        raise


def _sentinels(client: Any) -> list[Any]:  # noqa: ANN401 - as above
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def _timed(timeout_s: float) -> dict[str, Any]:
    return {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, _CONNECT_S)}


def _data_options(address: RedisAddress) -> dict[str, Any]:
    return {name: value for name, value in address.options.items() if not name.startswith(_SENTINEL)}


def _sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """Return what differs for the sentinels: their own user and password, the same TLS."""
    shared = {name: value for name, value in address.options.items() if name.startswith("ssl")}
    own = {name.removeprefix(_SENTINEL): value for name, value in address.options.items() if name.startswith(_SENTINEL)}
    return shared | own
