"""Reads and writes the socket under a transport directly, past the event loop.

A wake-up takes longer (some 40 us) than the reply of a server nearby, and the event loop writes only at the end of an
iteration. So a caller with nothing else to do writes at once and busy-polls for the reply.
"""

from __future__ import annotations

import asyncio
import os
import time

_CHUNK = 1 << 18
_POLL_S = 100e-6  # how long a read busy-polls
_SKIPS = 50  # how many reads are skipped after busy-polling was in vain


class RawSocket:
    """The non-blocking socket of an open transport.

    Args:
        transport: of a stream, without TLS.
        descriptor: of its socket.
    """

    def __init__(self, transport: asyncio.WriteTransport, descriptor: int) -> None:
        self._transport = transport
        self._descriptor = descriptor
        self._skips_left = 0

    @classmethod
    def of_transport(cls, transport: asyncio.WriteTransport) -> RawSocket | None:
        """Return the socket of a transport; None if it has none or is encrypted."""
        sock = transport.get_extra_info("socket")
        if sock is None or transport.get_extra_info("ssl_object") is not None:
            return None
        return cls(transport, sock.fileno())

    def write(self, message: bytes) -> None:
        """Write at once. The transport writes the rest, and it also reports a broken connection."""
        if self._transport.get_write_buffer_size():
            self._transport.write(message)
            return
        try:
            n_written = os.write(self._descriptor, message)
        except OSError:
            n_written = 0
        if n_written < len(message):
            self._transport.write(message[n_written:])

    def poll(self) -> bytes:
        """Return the bytes that arrive within 100 us; empty if none arrive or the event loop must handle an error.

        If busy-polling was in vain, the server is far away or busy, and the next calls return at once.
        """
        if self._skips_left:
            self._skips_left -= 1
            return b""
        end = time.perf_counter() + _POLL_S
        while True:
            try:
                return os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                if time.perf_counter() > end:
                    break
            except OSError:
                return b""
        self._skips_left = _SKIPS
        return b""
