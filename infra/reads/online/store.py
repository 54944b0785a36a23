"""Opens the online store of a URL with the adapter for its scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.infra.platform.host.plugins import find_plugin
from skewless.infra.reads.online.port import (
    BlockingOnlineReader,
    OnConnect,
    OnlineAdapter,
    OnlineReader,
    OnlineStore,
)

if TYPE_CHECKING:
    from skewless.infra.reads.online.probe import RedisProbe

_REDIS = frozenset({"redis", "rediss", "unix"})


def open_online_store(url: str) -> OnlineStore:
    """Open the writing side.

    Raises:
        StoreError: the store is unavailable, or evicts keys when it is full.
        DefinitionError: the adapter of another package cannot be imported.
    """
    return _adapter(url).store(url)


def open_online_reader(url: str, timeout_s: float = 2.0, on_connect: OnConnect | None = None) -> OnlineReader:
    """Open the reading side for a server; it does not connect yet.

    Args:
        url: of the store.
        timeout_s: the timeout of a read, in seconds.
        on_connect: awaited for each new connection, before anything is read over it.
    """
    return _adapter(url).reader(url, timeout_s, on_connect)


def open_blocking_reader(url: str) -> BlockingOnlineReader:
    """Open the reading side for jobs and notebooks."""
    return _adapter(url).blocking_reader(url)


def open_probe(url: str) -> RedisProbe | None:
    """Open what ``skewless doctor --deep`` looks through; None: the store is not a Redis.

    Raises:
        StoreError: a cluster does not answer.
    """
    if not is_redis(url):
        return None
    from skewless.infra.reads.online.probe import RedisProbe  # noqa: PLC0415 - only for this command

    return RedisProbe(url)


def is_redis(url: str) -> bool:
    """Return whether a URL is that of a Redis.

    >>> is_redis("rediss+cluster://a:1"), is_redis("sqlite:///p.db")
    (True, False)
    """
    return url.partition("://")[0].partition("+")[0] in _REDIS


def _adapter(url: str) -> OnlineAdapter:
    """Return the adapter that an installed package registers for the URL's scheme; otherwise the adapter for Redis."""
    if not is_redis(url):
        adapter: OnlineAdapter | None = find_plugin("skewless.online_stores", url.partition("://")[0])
        if adapter is not None:
            return adapter
    from skewless.infra.reads.online.redis_store import REDIS  # noqa: PLC0415 - a server with another store does not load it

    return REDIS
