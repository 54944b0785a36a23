"""A connection on the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from skewless.client.addresses import Address
from skewless.client.wire import Response, ResponseReader, WireError

if TYPE_CHECKING:
    import ssl


class AsyncConnection(asyncio.Protocol):
    """One connection to a server, for one task at a time; one whose task was cancelled must be closed."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._reply: asyncio.Future[Response] | None = None
        self._lost = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, address: Address, tls: ssl.SSLContext | None) -> AsyncConnection:
        """Return a connection.

        Args:
            address: where to.
            tls: how TLS is spoken; used only for an address that wants it.

        Raises:
            OSError: there is no server, or it is not the one of its certificate.
        """
        loop = asyncio.get_running_loop()
        secure = tls if address.secure else None
        _, connection = await loop.create_connection(cls, address.host, address.port, ssl=secure)
        return connection

    async def ask(self, data: bytes) -> Response:
        """Send a request and return its reply.

        Raises:
            OSError: the connection broke.
            WireError: it ended before a reply, or what came is none.
        """
        self._reader = ResponseReader()
        self._reply = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(data)
        return await self._reply

    def usable(self) -> bool:
        """Say whether it is open, and the last request is all sent: a server may answer before it has read all."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def close(self) -> None:
        """Close it without waiting for anything; closing twice is allowed."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the event loop has let go of it."""
        await asyncio.wait([self._lost])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes; called by the event loop."""
        if self._reply is None or self._reply.done():
            self.close()  # nobody asked for them
            return
        try:
            self._settle(self._reader.feed(data))
        except WireError as error:
            self._reply.set_exception(error)

    def eof_received(self) -> bool:
        """Take the server's end; called by the event loop, which then closes the connection."""
        self._settle(self._reader.end())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by the event loop."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc or WireError("the connection was closed before a reply"))
        if not self._lost.done():
            self._lost.set_result(None)

    def _settle(self, response: Response | None) -> None:
        if response is not None and self._reply is not None and not self._reply.done():
            self._reply.set_result(response)
