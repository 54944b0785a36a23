"""The online store of a URL: the one place that knows which adapter speaks to it."""

from __future__ import annotations

from skewless.infra.online.port import BlockingOnlineReader, OnConnect, OnlineReader, OnlineStore
from skewless.infra.online.redis_store import READ_S, BlockingReader, RedisReader, RedisWriter


def open_online_store(url: str) -> OnlineStore:
    """Return the writing side.

    Raises:
        StoreError: it is away, or removes keys when it is full.
    """
    return RedisWriter(url)


def open_online_reader(url: str, timeout_s: float = READ_S, on_connect: OnConnect | None = None) -> OnlineReader:
    """Return the reading side of a server; nothing is asked yet.

    Args:
        timeout_s: how long a read may take.
        on_connect: awaited for each connection that was made, before anything is read over it.
    """
    return RedisReader(url, timeout_s, on_connect)


def open_blocking_reader(url: str) -> BlockingOnlineReader:
    """Return the reading side for jobs and notebooks."""
    return BlockingReader(url)
