"""Parses the URL of a store, opens redis-py clients for it, and translates their exceptions into StoreErrors.

The URL is that of one server, a cluster, or a master that Sentinel manages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.port import OnConnect
from skewless.infra.reads.online.resp import RespConnection

Kind = Literal["server", "cluster", "sentinel"]
_KINDS: dict[str, Kind] = {
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
}
_DEFAULT_PORTS = {"cluster": 6379, "sentinel": 26379}
_FIX = (
    "write redis://HOST:PORT/DB, unix://, redis+cluster://HOST:PORT,HOST:PORT/ or "
    "redis+sentinel://HOST:PORT,HOST:PORT/NAME/DB, with rediss for TLS; "
    "in a password '/' is %2F, '@' is %40, ':' is %3A; "
    "another scheme needs the package of its adapter, and stream_url for push sources"
)
_CONNECT_S = 5.0
_SENTINEL = "sentinel_"
# A connection may still go to the old master. redis-py's default retries would delay a request by half a minute.
_RETRIES = 1
_AGAIN = "then run again; no data was lost"


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """The parsed URL of a Redis.

    Args:
        kind: one server, a cluster, or a master that Sentinel manages.
        url: the unchanged URL.
        hosts: hosts and ports to connect to first: cluster nodes or sentinels; empty for one server.
        service: the name of the master in Sentinel; empty otherwise.
        options: keyword arguments for redis-py's connections: user, password, database, TLS.
    """

    kind: Kind
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Parse a URL.

        >>> RedisAddress.parse("redis+sentinel://a:1,b/features/2").hosts
        (('a', 1), ('b', 26379))

        Raises:
            StoreError: it is not the URL of a Redis. The error does not quote the URL, which may hold a password.
        """
        try:
            return cls._parse_parts(url)
        except ValueError:
            raise StoreError("setting 'redis_url'", "is not the URL of a Redis", fix=_FIX) from None

    @property
    def host_names(self) -> list[str]:
        """Return the hosts to connect to first; none for a socket of this machine.

        >>> RedisAddress.parse("redis://u:p@a:1/0").host_names, RedisAddress.parse("unix:///tmp/r").host_names
        (['a'], [])
        """
        if self.hosts or "unix_socket_path" in self.options:
            return [host for host, _ in self.hosts]
        return [urlsplit(self.url).hostname or "localhost"]

    @classmethod
    def _parse_parts(cls, url: str) -> RedisAddress:
        kind = _KINDS.get(url.partition("://")[0], "server")
        if kind == "server":
            return cls(kind=kind, url=url, options=_parse_options(url))
        # urlsplit does not understand several hosts, so the authority is split by hand.
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        user, at, names = authority.rpartition("@")
        path, mark, query = path.partition("?")
        service, _, database = path.strip("/").partition("/") if kind == "sentinel" else ("", "", path.strip("/"))
        if (kind == "sentinel") is not bool(service) or not names:
            raise ValueError(kind)
        # redis-py parses user, password, database and TLS from a URL with one placeholder host.
        plain = f"{scheme.partition('+')[0]}://{user}{at}host/{database}{mark}{query}"
        options = _parse_options(plain)
        if kind == "cluster" and options.get("db"):
            raise ValueError(kind)  # a cluster has one database
        hosts = tuple(_parse_host(name, _DEFAULT_PORTS[kind]) for name in names.split(","))
        return cls(kind=kind, url=url, hosts=hosts, service=unquote(service), options=options)


def _parse_options(url: str) -> dict[str, Any]:
    options = dict(parse_url(url))  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", None)
    if kind is SSLConnection:
        options["ssl"] = True
    elif kind is not None:
        options["unix_socket_path"] = options.pop("path")
    for name in ("host", "port"):
        options.pop(name, None)
    return options


def _parse_host(name: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{name}")
    if not parts.hostname:
        raise ValueError(name)
    return parts.hostname, parts.port or default


def open_client(address: RedisAddress, timeout_s: float, on_connect: Callable[[], None] | None = None) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
    """Return a blocking client. The client of a cluster connects at once, the others on first use.

    Args:
        address: of the store.
        timeout_s: the timeout of one command, in seconds.
        on_connect: called for each new connection, before it is used.

    Raises:
        RedisError: the cluster does not answer.
    """
    options = _timeout_options(timeout_s)
    if on_connect is not None:
        # redis-py then leaves the handshake to this function, except in the client of a cluster.
        options["redis_connect_func"] = partial(_handle_connect, on_connect, address.kind != "cluster")
    if address.kind == "server":
        return redis.Redis.from_url(address.url, **options)
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **_data_options(address), **options)
    options["retry"] = Retry(NoBackoff(), _RETRIES)
    sentinel: Any = Sentinel(address.hosts, sentinel_kwargs=_sentinel_options(address) | options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(address.service, **_data_options(address), **options)


def open_async_client(address: RedisAddress, timeout_s: float) -> Any:  # noqa: ANN401 - as above
    """Return an asynchronous client of one server or of a Sentinel master; it connects on first use.

    It does not retry: the caller decides whether to send a command again.
    """
    options = _timeout_options(timeout_s) | {"retry": AsyncRetry(NoBackoff(), 0)}
    if address.kind == "server":
        return redis.asyncio.Redis.from_url(address.url, **options)
    sentinel = AsyncSentinel(address.hosts, sentinel_kwargs=_sentinel_options(address) | options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(address.service, **_data_options(address), **options)


def open_async_node(address: RedisAddress, host: str, port: int, timeout_s: float) -> Any:  # noqa: ANN401 - as above
    """Return an asynchronous client of one cluster node; it does not retry either."""
    options = _timeout_options(timeout_s) | {"retry": AsyncRetry(NoBackoff(), 0)}
    return redis.asyncio.Redis(host=host, port=port, **_data_options(address), **options)


def close_client(client: Any) -> None:  # noqa: ANN401 - as above
    """Close a blocking client and its clients of sentinels."""
    client.close()
    for sentinel in _sentinels(client):
        sentinel.close()


async def close_async_client(client: Any) -> None:  # noqa: ANN401 - as above
    """Close an asynchronous client and its clients of sentinels."""
    await client.aclose()
    for sentinel in _sentinels(client):
        await sentinel.aclose()


async def dial(client: Any, on_connect: OnConnect | None, protocol: asyncio.Protocol) -> asyncio.StreamWriter:  # noqa: ANN401 - as above
    """Open a connection of an asynchronous client, authenticate it, and attach a protocol to its transport.

    The client then no longer owns the connection. It stays open while the returned writer exists.

    Args:
        client: an asynchronous redis-py client.
        on_connect: awaited once the connection is open; None: nothing.
        protocol: receives the bytes of the connection.

    Raises:
        RedisError: the connection cannot be opened, or the server rejects user, password or database.
        SkewlessError: raised by ``on_connect``.
    """
    connection = client.connection_pool.make_connection()
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    writer: asyncio.StreamWriter = connection._writer  # noqa: SLF001 - it has no public name
    # Otherwise the client would close the connection when it is garbage-collected.
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
def borrow_connection(client: Any) -> Iterator[RespConnection]:  # noqa: ANN401 - as above
    """Borrow one connection from the pool of a blocking client of one server.

    After an error the connection is closed, because a reply may still be outstanding.
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


def _handle_connect(on_connect: Callable[[], None], authenticate: bool, connection: Any) -> None:  # noqa: ANN401, FBT001 - as above
    """Authenticate a new connection, unless redis-py's cluster client has done it, and call ``on_connect``."""
    if authenticate:
        connection.on_connect()
    try:
        on_connect()
    except SkewlessError:
        connection.disconnect()
        raise


def _sentinels(client: Any) -> list[Any]:  # noqa: ANN401 - as above
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def _timeout_options(timeout_s: float) -> dict[str, Any]:
    return {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s, _CONNECT_S)}


def _data_options(address: RedisAddress) -> dict[str, Any]:
    return {name: value for name, value in address.options.items() if not name.startswith(_SENTINEL)}


def _sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """Return the options for connections to sentinels: their own user and password, and the same TLS options."""
    shared = {name: value for name, value in address.options.items() if name.startswith("ssl")}
    own = {name.removeprefix(_SENTINEL): value for name, value in address.options.items() if name.startswith(_SENTINEL)}
    return shared | own


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Raise StoreError for each failure of the store at ``url``."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise to_store_error(url, error) from error


def to_store_error(url: str, error: Exception) -> StoreError:
    """Return the StoreError for a failure of the store at ``url``."""
    if isinstance(error, StoreError):
        return error
    problem, fix = _explain(error)
    translation = StoreError(f"Redis at {display_url(url)}", problem, fix=fix)
    translation.__cause__ = error
    return translation


def _explain(error: Exception) -> tuple[str, str]:
    if isinstance(error, OutOfMemoryError):
        return f"is full: {error}", f"raise its maxmemory, {_AGAIN}"
    if isinstance(error, ReadOnlyError):
        return f"is a read-only replica: {error}", f"use the address of its master, or of its sentinels, {_AGAIN}"
    if isinstance(error, AskError | ClusterCrossSlotError):  # MovedError is a subclass of AskError
        return f"is a node of a cluster: {error}", f"use redis+cluster://HOST:PORT/, {_AGAIN}"
    if isinstance(error, NoPermissionError) or "permission" in str(error):  # a script's error has another class
        return f"refuses a command: {error}", f"allow its user all commands on keys sk:* (ACL SETUSER), {_AGAIN}"
    return f"did not answer: {error}", f"start it or correct SKEWLESS_REDIS_URL, {_AGAIN}"
