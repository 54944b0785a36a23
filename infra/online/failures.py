"""Translates redis-py exceptions into StoreErrors with a fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from skewless.contract.errors import StoreError
from skewless.infra.telemetry.redaction import display_url

_AGAIN = "then run again; no data was lost"


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
    return f"did not answer: {error}", f"start it or correct SKEWLESS_REDIS_URL, {_AGAIN}"
