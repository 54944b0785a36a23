"""A connection that blocks its thread."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from skewless.client.addresses import Address
from skewless.client.wire import Response, ResponseReader, WireError

if TYPE_CHECKING:
    import ssl

_CHUNK = 65_536


class Connection:
    """One connection to a server, for one thread at a time.

    Args:
        address: where to.
        tls: how TLS is spoken; used only for an address that wants it.
        seconds: how long connecting may take.

    Raises:
        OSError: there is no server, it is not the one of its certificate, or it takes too long.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None, seconds: float) -> None:
        self._socket = socket.create_connection((address.host, address.port), seconds)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.secure and tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=address.host)
        except OSError:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def ask(self, data: bytes, left_s: Callable[[], float]) -> Response:
        """Send a request and return its reply.

        Args:
            data: bytes of the request.
            left_s: says how much time is left, seconds.

        Raises:
            OSError: the connection broke, or there was no reply in time (TimeoutError).
            WireError: what came is no HTTP reply.
        """
        self._socket.settimeout(_positive(left_s()))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)  # a server may refuse before it has read all, and its reply may be here
        reader = ResponseReader()
        while True:
            self._socket.settimeout(_positive(left_s()))
            part = self._socket.recv(_CHUNK)
            response = reader.feed(part) if part else reader.end()
            if response is not None:
                return response
            if not part:
                problem = "the connection was closed before a reply"
                raise WireError(problem)

    def usable(self) -> bool:
        """Say whether it is open, and nothing has come that nobody asked for."""
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close it; closing twice is allowed."""
        self._socket.close()


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise TimeoutError
    return seconds
