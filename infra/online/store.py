"""The online store of a URL: the one place that knows which adapter speaks to it."""

from __future__ import annotations

from skewless.infra.host.plugins import find_plugin
from skewless.infra.online.port import (
    BlockingOnlineReader,
    Lease,
    OnConnect,
    OnlineAdapter,
    OnlineReader,
    OnlineStore,
)

_REDIS = frozenset({"redis", "rediss", "unix"})


def open_online_store(url: str) -> OnlineStore:
    """Return the writing side.

    Raises:
        StoreError: it is away, or removes keys when it is full.
        DefinitionError: the adapter of another package cannot be imported.
    """
    return _adapter(url).store(url)


def open_online_reader(url: str, timeout_s: float = 2.0, on_connect: OnConnect | None = None) -> OnlineReader:
    """Return the reading side of a server; nothing is asked yet.

    Args:
        timeout_s: how long a read may take.
        on_connect: awaited for each connection that was made, before anything is read over it.
    """
    return _adapter(url).reader(url, timeout_s, on_connect)


def open_blocking_reader(url: str) -> BlockingOnlineReader:
    """Return the reading side for jobs and notebooks."""
    return _adapter(url).blocking_reader(url)


def open_lease(url: str, project: str, holder: str, ttl_s: float) -> Lease:
    """Return a candidate for the lease of a project's scheduler; nothing is asked yet."""
    return _adapter(url).lease(url, project, holder, ttl_s)


def _adapter(url: str) -> OnlineAdapter:
    """Return the adapter that an installed package registers for the scheme of a URL; for any other scheme, Redis's."""
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in _REDIS:
        found: OnlineAdapter | None = find_plugin("skewless.online_stores", scheme)
        if found is not None:
            return found
    from skewless.infra.online.redis_store import REDIS  # noqa: PLC0415 - a server whose store is another does without

    return REDIS
