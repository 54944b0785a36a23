"""One connection that many callers share: commands are pipelined, replies come back in order.

A wake-up of the event loop takes longer (some 40 us) than the reply of a server nearby, and the loop writes only at the
end of an iteration. So a caller with nothing else to do writes to the socket at once, and busy-polls for the reply.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import hiredis
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from skewless.contract.errors import SkewlessError
from skewless.infra.reads.online.port import settle

# Called with the reply or with an error. It must not raise on an error.
Done: TypeAlias = Callable[[Any], None]
# Opens a connection that feeds a protocol.
Dial: TypeAlias = Callable[[asyncio.Protocol], Awaitable[asyncio.StreamWriter]]

_MORE = object()  # returned by hiredis for an incomplete reply
_TICKS = 10
_CHUNK = 1 << 18
_POLL_S = 100e-6  # how long a read busy-polls
_SKIPS = 50  # how many reads are skipped after busy-polling was in vain


class StoreLink(asyncio.Protocol):
    """A pipelined connection that opens at once and is never reused after it breaks.

    Commands that arrive while it opens are sent once it is open. Replies go to callers in the order of their commands.
    A caller that has stopped waiting still gets its reply, so that no later caller receives it.

    Timeouts are counted in ticks of the loop's own timer. A loop that was blocked for seconds therefore does not
    blame the server for them.

    Args:
        dial: opens the connection.
        timeout_s: the timeout of a reply in seconds, the time to connect included; accurate to a tenth.
    """

    def __init__(self, dial: Dial, timeout_s: float) -> None:
        self.is_broken = False
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            notEnoughData=_MORE,
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
        )
        self._pending: deque[tuple[Done, int]] = deque()
        self._unsent: list[bytes] = []
        self._send: Callable[[bytes], None] = self._unsent.append
        self._writer: asyncio.StreamWriter | None = None
        self._socket: RawSocket | None = None
        self._tick_s = timeout_s / _TICKS
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._open_task = self._loop.create_task(self._open(dial))

    def send(self, message: bytes, done: Done) -> None:
        """Send one command and call ``done`` with its reply, later. The link must not be broken."""
        if not self._pending:
            # No other caller waits: sending at once saves an iteration of the loop.
            self._send(message)
        else:
            # Other callers wait too: commands of the same loop iteration go out with one system call.
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(message)
        self._pending.append((done, self._ticks))
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._tick)

    def busy_poll(self) -> None:
        """Busy-poll for up to 100 us: a reply that arrives in that time reaches its caller before this returns."""
        while self._pending and self._socket is not None and not self.is_broken:
            data = self._socket.poll()
            if not data:
                return  # the event loop handles whatever is left, also a closed connection
            self.data_received(data)

    def send_all(self, message: bytes, dones: Sequence[Done]) -> None:
        """Send several commands at once; call each of ``dones`` with the reply to one, in order."""
        self.send(message, dones[0])
        self._pending.extend((done, self._ticks) for done in dones[1:])

    async def call(self, message: bytes) -> Any:  # noqa: ANN401 - replies have any type
        """Send one command and return its reply.

        Raises:
            RedisError: the server rejected the command, or the connection broke.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(message, partial(settle, future))
        return await future

    def abort(self, error: Exception) -> None:
        """Close the connection and give the error to all waiting callers."""
        self.is_broken = True
        self._socket = None
        self._open_task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._unsent.clear()
        # Cleared before the callbacks run, because a callback may send a new command over a new link.
        pending = list(self._pending)
        self._pending.clear()
        for done, _ in pending:
            done(error)

    async def close(self) -> None:
        """Close the connection and cancel its task."""
        self.abort(RedisConnectionError("the connection was closed"))
        await asyncio.wait([self._open_task])

    def data_received(self, data: bytes) -> None:
        """Give each complete reply to its caller."""
        pending, reader = self._pending, self._reader
        reader.feed(data)
        try:
            while pending:
                reply = reader.gets()
                if reply is _MORE:
                    return
                done, _ = pending.popleft()
                _deliver(done, reply)
        except InvalidResponse as error:
            self.abort(error)
        else:
            # Replies are out of step with commands, so none of them can be trusted any more.
            if reader.has_data() and not self.is_broken:
                self.abort(InvalidResponse("received a reply without a command"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the error to all waiting callers."""
        self.abort(RedisConnectionError(str(exc or "the server closed the connection")))

    async def _open(self, dial: Dial) -> None:
        try:
            self._writer = await dial(self)
        except (RedisError, OSError, SkewlessError) as error:
            self.abort(error)
            return
        self._socket = RawSocket.of_transport(self._writer.transport)
        # TLS needs the transport; a plain socket can be written directly.
        self._send = self._writer.transport.write if self._socket is None else self._socket.write
        self._flush()

    def _flush(self) -> None:
        if self._writer is not None and self._unsent:
            message = b"".join(self._unsent)
            self._unsent.clear()
            self._send(message)

    def _tick(self) -> None:
        self._ticks += 1
        # Replies come in order, so only the oldest command can be overdue.
        if self._pending and self._ticks - self._pending[0][1] >= _TICKS:
            self.abort(RedisTimeoutError("the server did not reply in time"))
        self._timer = self._loop.call_later(self._tick_s, self._tick) if self._pending else None


def _deliver(done: Done, reply: Any) -> None:  # noqa: ANN401 - replies have any type
    """Give a reply to its caller. If the caller cannot read it, it gets that error: no caller may wait forever."""
    try:
        done(reply)
    except Exception as error:  # noqa: BLE001 - a corrupt value may raise anything
        done(InvalidResponse(f"a value cannot be read: {error!r:.200}"))


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
