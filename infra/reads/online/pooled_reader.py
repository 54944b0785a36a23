"""Reads keys over pooled redis-py connections, but sends and parses with the socket and hiredis directly.

The server needs some 10 us for a read of one row, redis-py 40 us: it checks that the pooled connection is alive,
polls before each call because of its timeout, and passes through layers that other commands need. Here the kernel
enforces the timeout, and a broken connection is noticed when it is used.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

_CHUNK = 1 << 18
_MORE = object()
_POLL_S = 300e-6  # how long a read busy-polls: of a slow machine, too, a reply of many rows comes in this time
_BLOCKING_READS = 50  # how many reads block at once after busy-polling was in vain


class RawConnection:
    """The socket of a redis-py connection, used directly.

    Args:
        connection: an open redis-py connection.
        timeout_s: the timeout of one system call, in seconds.
    """

    def __init__(self, connection: Any, timeout_s: float) -> None:  # noqa: ANN401 - redis-py's are untyped
        self.connection = connection
        self._socket: socket.socket = connection._sock  # noqa: SLF001 - it has no public name
        # The kernel enforces the timeout, because settimeout() would poll before every call.
        limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._socket.settimeout(None)
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._buffer = bytearray(_CHUNK)
        self._blocking_reads_left = 0

    def call(self, message: bytes) -> Any:  # noqa: ANN401 - replies have any type
        """Send one command and return its reply; an error reply is returned, not raised.

        Raises:
            RedisError: the connection is broken, or the server did not reply in time.
        """
        try:
            self._socket.sendall(message)
            while True:
                received = self._receive()
                if not received:
                    raise RedisConnectionError("the server closed the connection")
                self._reader.feed(self._buffer, 0, received)  # type: ignore[arg-type]  # any buffer
                reply = self._reader.gets()
                if reply is not _MORE:
                    return reply
        except BlockingIOError as error:
            raise RedisTimeoutError("the server did not reply in time") from error
        except OSError as error:
            raise RedisConnectionError(str(error)) from error

    def _receive(self) -> int:
        """Wait for bytes. Busy-poll first: a wake-up takes longer than the reply of a server nearby.

        If that was in vain, the server is far away or busy, and the next reads block at once.
        """
        if self._blocking_reads_left:
            self._blocking_reads_left -= 1
            return self._socket.recv_into(self._buffer)
        end = time.perf_counter() + _POLL_S
        while True:
            try:
                return self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.perf_counter() > end:
                    break
        self._blocking_reads_left = _BLOCKING_READS
        return self._socket.recv_into(self._buffer)


class PooledReader:
    """Reads many keys over pooled connections; threads may share it.

    Args:
        client: redis-py's client of one server, with a timeout.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's are untyped
        self._pool = client.connection_pool
        self._timeout_s = float(self._pool.connection_kwargs["socket_timeout"])
        self._idle: list[RawConnection] = []
        self._pid = os.getpid()

    def read(self, message: bytes) -> list[bytes | None] | None:
        """Return the values of one MGET; None: use redis-py instead, which may succeed or report the problem.

        Raises:
            RedisError: the server is unavailable, or did not reply in time.
        """
        if self._pid != os.getpid():
            # After a fork the sockets belong to the parent process.
            self._idle, self._pid = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            new_connection = self._open()
            if new_connection is None:
                return None
            connection = new_connection
        try:
            reply = connection.call(message)
        except RedisTimeoutError:
            self._close([connection])
            raise
        except RedisConnectionError:
            # The server was probably restarted, so the idle connections are dead too.
            self._close([connection, *self._idle])
            return None
        except BaseException:
            self._close([connection])
            raise
        # An error reply, such as LOADING: redis-py turns it into the right exception.
        if type(reply) is not list:
            self._close([connection])
            return None
        self._idle.append(connection)
        return reply

    def close(self) -> None:
        """Close all connections."""
        self._close(self._idle)

    def _open(self) -> RawConnection | None:
        connection = self._pool.get_connection()
        sock = getattr(connection, "_sock", None)
        if isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket):
            return RawConnection(connection, self._timeout_s)
        self._pool.release(connection)
        return None

    def _close(self, connections: Iterable[RawConnection]) -> None:
        for connection in list(connections):
            if connection in self._idle:
                self._idle.remove(connection)
            connection.connection.disconnect()
            self._pool.release(connection.connection)
