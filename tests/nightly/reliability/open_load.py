"""Requests that are sent on schedule, whether or not earlier ones have been answered; each is accounted for."""

from __future__ import annotations

import gc
import random
import select
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import numpy as np

from benchmarks.http_wire import is_whole, status_of

LOST = 0  # in place of a status: the connection ended before the reply
_PATIENCE_S = 10.0
_RECEIVE = 1 << 18
_SEED = 11
_now = time.perf_counter


@dataclass(frozen=True)
class Target:
    """The address of a server, and the TLS context of its clients; None: plain HTTP."""

    address: tuple[str, int]
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str, tls: ssl.SSLContext | None = None) -> Self:
        """Return the target of a URL."""
        parts = urlsplit(url)
        return cls((parts.hostname or "", parts.port or 0), tls)

    def connect(self) -> socket.socket:
        """Return a connection that sends at once."""
        connection = socket.create_connection(self.address, timeout=_PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection if self.tls is None else self.tls.wrap_socket(connection)


@dataclass(frozen=True, slots=True)
class TimedReply:
    """The result of one request; times are seconds on ``time.perf_counter``.

    Args:
        place: which of the requests it was.
        due: when it was to be sent.
        ended: when the reply was complete.
        status: of HTTP, or ``LOST``.
        raw: the whole reply.
    """

    place: int
    due: float
    ended: float
    status: int
    raw: bytes

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended - self.due


class OpenLoad(threading.Thread):
    """Poisson arrivals of requests that repeat in a circle, on a thread of their own.

    Args:
        rate: requests a second.
        connections: a request that finds none free waits for one, and that counts.
    """

    def __init__(self, target: Target, requests: Sequence[bytes], *, rate: float, connections: int) -> None:
        super().__init__(daemon=True)
        self.replies: list[TimedReply] = []
        self.hung = 0
        self._target = target
        self._requests = requests
        self._gaps = random.Random(_SEED)
        self._rate = rate
        self._poll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._idle: deque[_Line] = deque()
        self._stopping = threading.Event()
        for _ in range(connections):
            self._connect()

    def run(self) -> None:
        """Send until stopped, then wait for the replies."""
        due = _now()
        place, last = 0, None
        while last is None or (self._busy and _now() < last):
            if last is None and self._stopping.is_set():
                last = _now() + _PATIENCE_S
            wait = 0.02 if last or not self._idle else min(max(due - _now(), 0.0), 0.02)
            select.select([self._poll], [], [], wait)  # an epoll counts in whole milliseconds
            for number, _ in self._poll.poll(0):
                self._receive(self._lines[number])
            while last is None and self._idle and due <= _now():
                self._send(place, due)
                place += 1
                due += self._gaps.expovariate(self._rate)
        self.hung = self._busy
        for line in self._lines.values():
            line.socket.close()
        self._poll.close()

    def stop(self) -> None:
        """Send no more; return once all is answered, or was waited for long enough."""
        self._stopping.set()
        self.join()

    @property
    def _busy(self) -> int:
        return len(self._lines) - len(self._idle)

    def _connect(self) -> None:
        line = _Line(self._target)
        self._lines[line.socket.fileno()] = line
        self._poll.register(line.socket.fileno(), select.EPOLLIN)
        self._idle.append(line)

    def _send(self, place: int, due: float) -> None:
        line = self._idle.popleft()
        line.place, line.due = place % len(self._requests), due
        try:
            line.socket.send(self._requests[line.place])
        except OSError:
            self._lose(line)

    def _receive(self, line: _Line) -> None:
        try:
            data = line.socket.recv(_RECEIVE)
        except ssl.SSLWantReadError:  # a ticket of the session, or a part of a record
            return
        except OSError:
            data = b""
        if not data:
            self._lose(line)
            return
        line.parts += data
        if is_whole(line.parts):
            self.replies.append(TimedReply(line.place, line.due, _now(), status_of(line.parts), line.parts))
            line.parts = b""
            self._idle.append(line)

    def _lose(self, line: _Line) -> None:
        if line in self._idle:
            self._idle.remove(line)
        else:
            self.replies.append(TimedReply(line.place, line.due, _now(), LOST, line.parts))
        self._poll.unregister(line.socket.fileno())
        del self._lines[line.socket.fileno()]
        line.socket.close()
        self._connect()


class _Line:
    """One connection, with at most one request in progress."""

    __slots__ = ("due", "parts", "place", "socket")

    def __init__(self, target: Target) -> None:
        self.socket = target.connect()
        if target.tls is not None:
            self.socket.setblocking(False)  # noqa: FBT003 - the standard library's
        self.parts = b""
        self.place = 0
        self.due = 0.0


@contextmanager
def load(
    url: str, requests: Sequence[bytes], *, rate: float, connections: int = 128, tls: ssl.SSLContext | None = None
) -> Iterator[OpenLoad]:
    """Send while the block runs; all is answered afterwards, or counted as hung."""
    sender = OpenLoad(Target.of(url, tls), requests, rate=rate, connections=connections)
    # To look at all objects of the tests for garbage takes a second, in which nothing would be sent or received.
    gc.collect()
    gc.freeze()
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()
        gc.unfreeze()


def statuses(replies: Sequence[TimedReply]) -> Counter[int]:
    """Return how often each status came."""
    return Counter(reply.status for reply in replies)


def quantile_ms(replies: Sequence[TimedReply], share: float) -> float:
    """Return the latency in milliseconds that this share of the replies did not exceed."""
    return float(np.quantile([reply.seconds for reply in replies], share, method="inverted_cdf")) * 1e3
