"""One connection that many callers share: their commands go out as they come, the replies come back in order."""

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

# Takes a reply, or the error that came in its place, and does not raise on that.
Done: TypeAlias = Callable[[Any], None]
# Opens a connection whose bytes go to a protocol.
Dial: TypeAlias = Callable[[asyncio.Protocol], Awaitable[asyncio.StreamWriter]]

_MORE = object()
_BEATS = 10


class StoreLink(asyncio.Protocol):
    """A connection that begins to open when it is made, and that is given up when it breaks, for a new one.

    What is asked while it opens is sent when it stands. A reply belongs to whoever has waited for the longest time;
    who has turned away meanwhile gets his reply all the same, so that none goes to another.

    Time is counted in beats of the loop's own timer: a loop that was held up for seconds does not take them for the
    server's.

    Args:
        dial: opens the connection.
        timeout_s: how long a reply may take, the opening included; up to a tenth less.
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
        """Send one command and have ``done`` called with its reply, later. The link must not be broken."""
        if not self._waiting:
            self._send(message)
        else:
            # Others are at it too: what comes in this round of the loop goes out by one call of the system.
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(message)
        self._waiting.append((done, self._beats))
        if self._timer is None:
            self._timer = self._loop.call_later(self._beat_s, self._beat)

    def linger(self) -> None:
        """Stay awake for a moment: a reply that comes meanwhile reaches its caller before this returns."""
        while self._waiting and self._socket is not None and not self.broken:
            data = self._socket.read_soon()
            if not data:
                return  # the loop will see what there is, a hung-up server too
            self.data_received(data)

    def ask_all(self, message: bytes, dones: Sequence[Done]) -> None:
        """Send several commands at once; each of ``dones`` is called with the reply to one, in their order."""
        self.ask(message, dones[0])
        self._waiting.extend((done, self._beats) for done in dones[1:])

    async def call(self, message: bytes) -> Any:  # noqa: ANN401 - replies have any type
        """Send one command and return its reply.

        Raises:
            RedisError: the command was refused, or the connection broke.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.ask(message, partial(settle, future))
        return await future

    def break_off(self, error: Exception) -> None:
        """Close the connection and tell everybody who waits why."""
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
        """Close the connection, and leave nothing behind that would still run."""
        self.break_off(RedisConnectionError("the connection was given back"))
        await asyncio.wait([self._opening])

    def data_received(self, data: bytes) -> None:
        """Give each reply that is complete to its caller."""
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
                self.break_off(InvalidResponse("a reply came that nobody had asked for"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self.break_off(RedisConnectionError(str(exc or "the server hung up")))

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
            self.break_off(RedisTimeoutError("the server took too long"))
        self._timer = self._loop.call_later(self._beat_s, self._beat) if self._waiting else None


def _tell(done: Done, reply: Any) -> None:  # noqa: ANN401 - replies have any type
    """Give a reply to its caller; one that it cannot read is an error of the store: nobody may wait for good."""
    try:
        done(reply)
    except Exception as error:  # noqa: BLE001 - whatever a damaged value leads to
        done(InvalidResponse(f"a value cannot be read: {error!r:.200}"))
