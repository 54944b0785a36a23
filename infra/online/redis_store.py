"""The online store on Redis or Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from skewless.errors import StoreError

_KEYS_PER_CALL = 200
_NEWER_WINS = Path(__file__).with_name("newer_wins.lua").read_text()
_ADVANCE = Path(__file__).with_name("advance.lua").read_text()
_POLICY = "noeviction"


class RedisWriter:
    """The blocking side: materialisation writes through it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = _open(redis.Redis.from_url, url, socket_timeout=30, socket_connect_timeout=5)
        with _translated(url):
            self._refuse_eviction()
            self._newer_wins = self._client.register_script(_NEWER_WINS)
            self._advance = self._client.register_script(_ADVANCE)

    def put(self, keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
        """Write each row unless the store holds one of a higher or equal rank."""
        written = 0
        with _translated(self._url):
            for start in range(0, len(keys), _KEYS_PER_CALL):
                stop = start + _KEYS_PER_CALL
                written += int(self._newer_wins(keys=keys[start:stop], args=rows[start:stop]))
        return written

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        with _translated(self._url):
            return _position(self._client.get(name))

    def set_marker(self, name: str, seq: int) -> None:
        """Record the position, never going back."""
        with _translated(self._url):
            self._advance(keys=[name], args=[seq])

    def clock_offset_us(self) -> int:
        """Return the store's clock minus this machine's, in microseconds, the best of three."""
        with _translated(self._url):
            return min((self._offset() for _ in range(3)), key=abs)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def _offset(self) -> int:
        before = time.time_ns() // 1_000
        seconds, microseconds = self._client.time()
        after = time.time_ns() // 1_000
        return int(seconds * 1_000_000 + microseconds - (before + after) // 2)

    def _refuse_eviction(self) -> None:
        policy = self._client.info("memory").get("maxmemory_policy", _POLICY)
        if policy != _POLICY:
            raise StoreError(
                f"Redis at {display_url(self._url)}",
                "may evict rows, which would read as entities without features",
                value=f"maxmemory-policy {policy}",
                fix=f"set maxmemory-policy {_POLICY}",
            )


class RedisReader:
    """The asynchronous side: the server reads through it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = _open(redis.asyncio.Redis.from_url, url, socket_timeout=2, socket_connect_timeout=2)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip."""
        if not keys:
            return []
        with _translated(self._url):
            return list(await self._client.mget(keys))

    async def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        with _translated(self._url):
            return _position(await self._client.get(name))

    async def close(self) -> None:
        """Give the connection back."""
        await self._client.aclose()


def display_url(url: str) -> str:
    """Return a URL without its password.

    >>> display_url("redis://user:secret@host:6379/0")
    'redis://***@host:6379/0'
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}://{rest}"


def _open(from_url: Callable[..., Any], url: str, **options: int) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
    try:
        return from_url(url, **options)
    except ValueError:
        # Its text may quote a part of the password.
        raise StoreError(
            "setting 'redis_url'",
            "is not the URL of a Redis",
            fix="write redis://HOST:PORT/DB, rediss:// or unix://; in a password '/' is %2F, '@' is %40, ':' is %3A",
        ) from None


def _position(value: bytes | None) -> int | None:
    return None if value is None else int(value)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        raise StoreError(
            f"Redis at {display_url(url)}",
            f"did not answer: {error}",
            fix="start it or correct SKEWLESS_REDIS_URL, then run again; nothing was lost",
        ) from error
