"""The socket under a transport, written and read without the event loop, which stays in charge of everything else.

To be woken takes longer (some 40 us) than a server nearby needs to answer, and a loop writes only at the end of its
turn. So who has nothing else to do writes at once, and stays awake for a moment.
"""

from __future__ import annotations

import asyncio
import os
import time

_CHUNK = 1 << 18
_AWAKE_S = 100e-6
_ASLEEP = 50  # waits


class RawSocket:
    """Made of a transport that is open.

    Args:
        transport: of a stream, without TLS.
        descriptor: of its socket.
    """

    def __init__(self, transport: asyncio.WriteTransport, descriptor: int) -> None:
        self._transport = transport
        self._descriptor = descriptor
        self._asleep = 0

    @classmethod
    def under(cls, transport: asyncio.WriteTransport) -> RawSocket | None:
        """Return the socket under a transport; None: there is none, or what is said over it is encrypted."""
        found = transport.get_extra_info("socket")
        if found is None or transport.get_extra_info("ssl_object") is not None:
            return None
        return cls(transport, found.fileno())

    def write(self, message: bytes) -> None:
        """Write now; what the system does not take goes the transport's way, which also learns of what is broken."""
        if self._transport.get_write_buffer_size():
            self._transport.write(message)
            return
        try:
            taken = os.write(self._descriptor, message)
        except OSError:
            taken = 0
        if taken < len(message):
            self._transport.write(message[taken:])

    def read_soon(self) -> bytes:
        """Return what comes within a moment; nothing, if it does not, or is left to the event loop.

        Where waiting was in vain, the server is far or busy, and the next waits are not tried.
        """
        if self._asleep:
            self._asleep -= 1
            return b""
        end = time.perf_counter() + _AWAKE_S
        while True:
            try:
                return os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                if time.perf_counter() > end:
                    break
            except OSError:
                return b""
        self._asleep = _ASLEEP
        return b""
