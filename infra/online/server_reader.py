"""Reads one server, or the master that Sentinel manages, over one shared connection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from redis.exceptions import MasterDownError, ReadOnlyError

from skewless.infra.online.clients import RedisAddress, close_async_client, dial, open_async_client, to_store_error
from skewless.infra.online.link import StoreLink
from skewless.infra.online.markers import parse_marker
from skewless.infra.online.port import OnConnect, ReadCallback
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

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Read rows and markers from one round trip, then call ``done`` with them."""
        n = len(keys)
        marker_keys = [name.encode() for name in names]
        if not n and not marker_keys:
            done(([], []))
            return

        def on_reply(reply: Any) -> None:  # noqa: ANN401 - replies have any type
            if isinstance(reply, Exception):
                done(to_store_error(self._url, self._drop_old_master(reply)))
            else:
                done((reply[:n], [parse_marker(value) for value in reply[n:]]))

        self._open_link().send(mget(keys, marker_keys), on_reply)

    def busy_poll(self) -> None:
        """Busy-poll for up to 100 us for a reply."""
        if self._link is not None:
            self._link.busy_poll()

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``.

        Raises:
            RedisError: the server is unavailable or is not a master.
        """
        for key in keys:
            try:
                await self._open_link().call(command(b"SET", key, b"1", b"EX", b"%d" % seconds))
            except _NO_MASTER as error:
                raise self._drop_old_master(error) from None

    async def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            await self._link.close()
        await close_async_client(self._client)

    def _open_link(self) -> StoreLink:
        if self._link is None or self._link.is_broken:
            self._link = StoreLink(partial(dial, self._client, self._on_connect), self._timeout_s)
        return self._link

    def _drop_old_master(self, error: Exception) -> Exception:
        """Close the connection if the server is no longer the master: the next one asks the sentinels again."""
        if isinstance(error, _NO_MASTER) and self._link is not None:
            self._link.abort(error)
        return error
