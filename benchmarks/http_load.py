"""Load over HTTP from one thread: raw sockets, an epoll, requests that lie ready; about 8 us of CPU a request.

A closed loop sends a connection's next request when the last one is answered. An open loop sends when a request is
due, and counts from then: a server that stalls is charged for all that waited (no coordinated omission).
"""

from __future__ import annotations

import ctypes
import gc
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np

from benchmarks.arrivals import Moments
from benchmarks.http_wire import body_of, is_whole, status_of
from benchmarks.latency import LatencySample

_RECEIVE = 1 << 18
_STALLED_S = 30.0
OK = b"HTTP/1.1 200"
_REFUSED = -1.0
_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1_000
_now = time.perf_counter


class LoadError(RuntimeError):
    """A server hung up, did not take a request, or did not answer for half a minute."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens, on loopback."""

    port: int
    host: str = "127.0.0.1"


def ask(address: Address, requests: Sequence[bytes]) -> list[bytes]:
    """Send requests one after another and return the bodies of the replies.

    Raises:
        LoadError: one was not answered with 200.
    """
    bodies = []
    with Lines(address, 1) as lines:
        (line,) = lines.all
        for request in requests:
            line.send(request)
            reply = None
            while reply is None:
                reply = lines.arrived(_STALLED_S)[0].receive()
            if not reply.startswith(OK):
                raise LoadError(f"status {status_of(reply)}: {body_of(reply)[:500]!r}")
            bodies.append(body_of(reply))
    return bodies


def closed_loop(address: Address, requests: Sequence[bytes], *, concurrency: int, seconds: float) -> LatencySample:
    """Keep so many requests under way for a while, each on a connection of its own; requests repeat in a circle.

    Raises:
        LoadError: see there.
    """
    latencies: list[float] = []
    refused: list[bytes] = []
    place = 0
    count = len(requests)
    with Lines(address, concurrency) as lines, quiet() as clock:
        end = _now() + seconds
        for line in lines.all:
            line.send(requests[place % count])
            place += 1
        under_way = concurrency
        while under_way:
            for line in lines.arrived(_STALLED_S):
                reply = line.receive()
                if reply is None:
                    continue
                now = _now()
                if reply.startswith(OK):
                    latencies.append(now - line.begun)
                else:
                    refused.append(reply)
                if now < end:
                    line.send(requests[place % count])
                    place += 1
                else:
                    under_way -= 1
    return clock.measured(latencies, refused, [])


def open_loop(address: Address, requests: Sequence[bytes], due: Moments, *, connections: int = 256) -> LatencySample:
    """Send each request when it is due, on whichever connection is free; where none is, it waits for one.

    Args:
        due: seconds from the start, ascending; ``benchmarks.arrivals`` makes them.

    Returns:
        The latencies in the order in which the requests were due; those that were refused are left out.

    Raises:
        LoadError: see there.
    """
    late: list[float] = []
    refused: list[bytes] = []
    place = answered = 0
    moments, count = due.tolist(), len(requests)
    total = len(moments)
    latencies = [_REFUSED] * total
    with Lines(address, connections) as lines, quiet() as clock:
        idle = deque(lines.all)
        start = _now()
        while answered < total:
            wait = _STALLED_S if place == total or not idle else max(moments[place] - (_now() - start), 0.0)
            for line in lines.arrived(wait, may_be_none=place < total):
                reply = line.receive()
                if reply is None:
                    continue
                answered += 1
                if reply.startswith(OK):
                    latencies[line.place] = _now() - start - moments[line.place]
                else:
                    refused.append(reply)
                idle.append(line)
            while idle and place < total and moments[place] <= (now := _now() - start):
                line = idle.popleft()
                line.place = place
                late.append(now - moments[place])
                line.send(requests[place % count])
                place += 1
    return clock.measured(latencies, refused, late)


class Line:
    """One connection with one request under way."""

    __slots__ = ("_parts", "_recv", "_send", "begun", "place", "socket")

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection((address.host, address.port), timeout=_STALLED_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self._send, self._recv = self.socket.send, self.socket.recv
        self._parts = b""
        self.begun = 0.0
        self.place = 0

    def send(self, request: bytes) -> None:
        """Send a request; it must fit the socket's buffer, which the system makes megabytes on loopback."""
        self.begun = _now()
        if self._send(request) != len(request):
            raise LoadError(f"a request of {len(request)} bytes is more than the connection takes at once")

    def receive(self) -> bytes | None:
        """Return the reply once it is whole."""
        received = self._recv(_RECEIVE)
        if not received:
            raise LoadError(f"the server hung up after {self._parts[:200]!r}")
        if self._parts:
            received = self._parts + received
        if is_whole(received):
            self._parts = b""
            return received
        self._parts = received
        return None


class Lines:
    """Connections and what tells which of them were answered."""

    def __init__(self, address: Address, count: int) -> None:
        self.all = [Line(address) for _ in range(count)]
        self._by_number = {line.socket.fileno(): line for line in self.all}
        self._poll = select.epoll()
        for number in self._by_number:
            self._poll.register(number, select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        for line in self.all:
            line.socket.close()

    def arrived(self, wait: float, *, may_be_none: bool = False) -> list[Line]:
        """Return the connections on which something arrived, waiting so many seconds.

        An epoll counts in whole milliseconds; select counts in microseconds, and an epoll is a file to it.
        """
        if may_be_none and wait < _STALLED_S:
            select.select([self._poll], [], [], wait)
            return [self._by_number[number] for number, _ in self._poll.poll(0)]
        events = self._poll.poll(wait)
        if not events:
            raise LoadError(f"nothing was answered for {wait:g} s")
        return [self._by_number[number] for number, _ in events]


class _Clock:
    def __init__(self) -> None:
        self._begun, self._cpu = _now(), time.process_time()

    def measured(self, latencies: Sequence[float], refused: Sequence[bytes], late: Sequence[float]) -> LatencySample:
        return LatencySample(
            latencies=np.array([latency for latency in latencies if latency != _REFUSED]),
            seconds=_now() - self._begun,
            cpu_seconds=time.process_time() - self._cpu,
            failed=len(refused),
            late=np.array(late),
            refusal=body_of(refused[0]) if refused else b"",
        )


@contextmanager
def quiet() -> Iterator[_Clock]:
    """Yield a clock that was just started, in a process that neither collects garbage nor oversleeps meanwhile."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS)
    gc.collect()
    gc.disable()
    try:
        yield _Clock()
    finally:
        gc.enable()
