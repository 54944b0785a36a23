"""Reads one server, or the master that Sentinel manages, over one shared connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import MasterDownError, ReadOnlyError

from skewless.contract.errors import StoreError
from skewless.infra.online.address import RedisAddress
from skewless.infra.online.clients import close_async_client, dial, open_async_client
from skewless.infra.online.failures import store_error
from skewless.infra.online.link import StoreLink
from skewless.infra.online.markers import mark_of
from skewless.infra.online.port import Marked, OnConnect
from skewless.infra.online.resp import command, mget

_NO_MASTER = (ReadOnlyError, MasterDownError)


class ServerReader:
    """Keeps one shared connection, opened on first use; callers that arrive while it opens share it.

    Args:
        address: of a server, or of sentinels.
        timeout_s: the timeout of a reply, in seconds.
        on_connect: awaited for each new connection, before anything is read over it.
    """

    def __init__(self, address: RedisAddress, timeout_s: float, on_connect: OnConnect | None = None) -> None:
        self._url = address.url
        self._timeout_s = timeout_s
        self._client = open_async_client(address, timeout_s)
        self._on_connect = on_connect
        self._link: StoreLink | None = None

    def ask(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        """Read rows and markers from one round trip, then call ``done`` with them."""
        n = len(keys)
        marks = [name.encode() for name in names]
        if not n and not marks:
            done(([], []))
            return

        def answered(reply: Any) -> None:  # noqa: ANN401 - replies have any type
            if isinstance(reply, Exception):
                done(store_error(self._url, self._checked(reply)))
            else:
                done((reply[:n], [mark_of(value) for value in reply[n:]]))

        self._live().ask(mget(keys, marks), answered)

    def linger(self) -> None:
        """Busy-poll for up to 100 us for a reply."""
        if self._link is not None:
            self._link.linger()

    async def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``.

        Raises:
            RedisError: the server is unavailable or is not a master.
        """
        for key in keys:
            try:
                await self._live().call(command(b"SET", key, b"1", b"EX", b"%d" % seconds))
            except _NO_MASTER as error:
                raise self._checked(error) from None

    async def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            await self._link.close()
        await close_async_client(self._client)

    def _live(self) -> StoreLink:
        if self._link is None or self._link.broken:
            self._link = StoreLink(partial(dial, self._client, self._on_connect), self._timeout_s)
        return self._link

    def _checked(self, error: Exception) -> Exception:
        """Close the connection if the server is no longer the master: the next one asks the sentinels again."""
        if isinstance(error, _NO_MASTER) and self._link is not None:
            self._link.break_off(error)
        return error
