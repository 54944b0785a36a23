"""One connection that many callers share: commands are pipelined, replies come back in order."""

from __future__ import annotations

import asyncio
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
from skewless.infra.online.port import settle
from skewless.infra.online.raw_socket import RawSocket

# Called with the reply or with an error. It must not raise on an error.
Done: TypeAlias = Callable[[Any], None]
# Opens a connection that feeds a protocol.
Dial: TypeAlias = Callable[[asyncio.Protocol], Awaitable[asyncio.StreamWriter]]

_MORE = object()  # returned by hiredis for an incomplete reply
_BEATS = 10


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
        self.broken = False
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            notEnoughData=_MORE,
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
        )
        self._waiting: deque[tuple[Done, int]] = deque()
        self._unsent: list[bytes] = []
        self._send: Callable[[bytes], None] = self._unsent.append
        self._writer: asyncio.StreamWriter | None = None
        self._socket: RawSocket | None = None
        self._beat_s = timeout_s / _BEATS
        self._beats = 0
        self._timer: asyncio.TimerHandle | None = None
        self._opening = self._loop.create_task(self._open(dial))

    def ask(self, message: bytes, done: Done) -> None:
        """Send one command and call ``done`` with its reply, later. The link must not be broken."""
        if not self._waiting:
            self._send(message)
        else:
            # Other callers wait too: commands of the same loop iteration go out with one system call.
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(message)
        self._waiting.append((done, self._beats))
        if self._timer is None:
            self._timer = self._loop.call_later(self._beat_s, self._beat)

    def linger(self) -> None:
        """Busy-poll for up to 100 us: a reply that arrives in that time reaches its caller before this returns."""
        while self._waiting and self._socket is not None and not self.broken:
            data = self._socket.read_soon()
            if not data:
                return  # the event loop handles whatever is left, also a closed connection
            self.data_received(data)

    def ask_all(self, message: bytes, dones: Sequence[Done]) -> None:
        """Send several commands at once; call each of ``dones`` with the reply to one, in order."""
        self.ask(message, dones[0])
        self._waiting.extend((done, self._beats) for done in dones[1:])

    async def call(self, message: bytes) -> Any:  # noqa: ANN401 - replies have any type
        """Send one command and return its reply.

        Raises:
            RedisError: the server rejected the command, or the connection broke.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.ask(message, partial(settle, future))
        return await future

    def break_off(self, error: Exception) -> None:
        """Close the connection and give the error to all waiting callers."""
        self.broken = True
        self._socket = None
        self._opening.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._unsent.clear()
        waiting = list(self._waiting)
        self._waiting.clear()
        for done, _ in waiting:
            done(error)

    async def close(self) -> None:
        """Close the connection and cancel its task."""
        self.break_off(RedisConnectionError("the connection was closed"))
        await asyncio.wait([self._opening])

    def data_received(self, data: bytes) -> None:
        """Give each complete reply to its caller."""
        waiting, reader = self._waiting, self._reader
        reader.feed(data)
        try:
            while waiting:
                reply = reader.gets()
                if reply is _MORE:
                    return
                done, _ = waiting.popleft()
                _tell(done, reply)
        except InvalidResponse as error:
            self.break_off(error)
        else:
            if reader.has_data() and not self.broken:
                self.break_off(InvalidResponse("received a reply without a command"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the error to all waiting callers."""
        self.break_off(RedisConnectionError(str(exc or "the server closed the connection")))

    async def _open(self, dial: Dial) -> None:
        try:
            self._writer = await dial(self)
        except (RedisError, OSError, SkewlessError) as error:
            self.break_off(error)
            return
        self._socket = RawSocket.under(self._writer.transport)
        self._send = self._writer.transport.write if self._socket is None else self._socket.write
        self._flush()

    def _flush(self) -> None:
        if self._writer is not None and self._unsent:
            message = b"".join(self._unsent)
            self._unsent.clear()
            self._send(message)

    def _beat(self) -> None:
        self._beats += 1
        if self._waiting and self._beats - self._waiting[0][1] >= _BEATS:
            self.break_off(RedisTimeoutError("the server did not reply in time"))
        self._timer = self._loop.call_later(self._beat_s, self._beat) if self._waiting else None


def _tell(done: Done, reply: Any) -> None:  # noqa: ANN401 - replies have any type
    """Give a reply to its caller. If the caller cannot read it, it gets that error: no caller may wait forever."""
    try:
        done(reply)
    except Exception as error:  # noqa: BLE001 - a corrupt value may raise anything
        done(InvalidResponse(f"a value cannot be read: {error!r:.200}"))
