"""urllib3 connections with a deadline: urllib3 applies a timeout to each read, but an attempt has one deadline."""

from __future__ import annotations

import io
import socket
import ssl
import time
from http.client import HTTPResponse
from typing import Any

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, connection_from_url
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from skewless.client.limits import Limits

_SHORTEST_S = 1e-6


class NotConnectedError(Exception):
    """The connection failed; nothing was sent."""


def connection_pool(url: str, limits: Limits, tls: ssl.SSLContext | None) -> HTTPConnectionPool:
    """Return a pool of connections to a server; a call raises ``NotConnectedError`` or an ``HTTPError``."""
    tls_options: dict[str, Any] = {}
    if tls is not None and url.startswith("https:"):
        # Without this, urllib3 would check the host name although the context does not.
        tls_options = {"ssl_context": tls, "assert_hostname": None if tls.check_hostname else False}
    pool = connection_from_url(
        url,
        timeout=limits.attempt_s,
        maxsize=limits.connections,
        connect_s=limits.connect_s,
        idle_s=limits.idle_s,
        **tls_options,
    )
    pool.ConnectionCls = _TlsConnection if tls_options else _Connection  # type: ignore[assignment]  # typed as a protocol
    return pool


class _Connection(HTTPConnection):
    """A connection on which every wait ends at the deadline of its attempt.

    urllib3 sets ``timeout`` to the remaining time twice: when the attempt begins, and before it waits for the reply.
    """

    def __init__(self, *args: Any, connect_s: float, idle_s: float, **settings: Any) -> None:  # noqa: ANN401 - urllib3's
        self._connect_s, self._idle_s = connect_s, idle_s
        self._deadline = self._used_at = 0.0
        super().__init__(*args, **settings)

    @property
    def timeout(self) -> float:
        return max(self._deadline - time.monotonic(), _SHORTEST_S)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self._used_at < self._idle_s and super().is_connected

    def connect(self) -> None:
        deadline = self._deadline
        self._deadline = min(deadline, time.monotonic() + self._connect_s)
        try:
            super().connect()
        except (OSError, HTTPError) as error:
            raise NotConnectedError(str(error.__cause__ or error)) from error
        self._deadline = deadline

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock is not None:
            self.sock.settimeout(self.timeout)
        super().send(data)

    def getresponse(self) -> BaseHTTPResponse:  # type: ignore[override]
        response = super().getresponse()
        self._used_at = time.monotonic()
        return response

    def response_class(self, sock: socket.socket, *args: Any, **settings: Any) -> HTTPResponse:  # type: ignore[override]  # noqa: ANN401 - http.client's
        response = HTTPResponse(sock, *args, **settings)
        response.fp = io.BufferedReader(_Reader(self, sock, response.fp.detach()))
        return response


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Reader(io.RawIOBase):
    """Reads from a socket until the deadline of the attempt."""

    def __init__(self, connection: _Connection, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._connection, self._socket, self._raw = connection, sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - a buffer, which has no type before Python 3.12
        self._socket.settimeout(self._connection.timeout)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
