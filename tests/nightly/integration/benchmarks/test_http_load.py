"""The load keeps its concurrency, counts what failed, and charges a server for those that waited while it stalled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.arrivals import constant
from benchmarks.crowd import crowd
from benchmarks.http_load import Address, LoadError, ask, closed_loop, open_loop
from benchmarks.http_wire import post

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
STALL_S = 0.4


class Script:
    """Answers the n-th request with ``answer(n)``, cut into pieces, and counts what is under way."""

    def __init__(self, answer: Callable[[int], bytes], stall_at: int = -1) -> None:
        self._answer, self._stall_at = answer, stall_at
        self.bodies: list[bytes] = []
        self.under_way = self.most = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends, or the script does."""
        try:
            await self._answer_all(reader, writer)
        finally:
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65_536):
            self.bodies.append(head.rpartition(b"\r\n\r\n")[2])
            number = len(self.bodies) - 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            if number == self._stall_at:
                self._idle.clear()
                await asyncio.sleep(STALL_S)
                self._idle.set()
            await self._idle.wait()
            await asyncio.sleep(0.001)
            self.under_way -= 1
            answer = self._answer(number)
            for piece in (answer[:9], answer[9:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not answer:
                break


@contextmanager
def listening(script: Callable[[], Script]) -> Iterator[tuple[Address, Script]]:
    """Run a script in a thread."""
    ready, found = threading.Event(), []

    async def main() -> None:
        served = script()
        ended = asyncio.Event()
        server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
        found.append((Address(port=server.sockets[0].getsockname()[1]), served, asyncio.get_running_loop(), ended))
        ready.set()
        async with server:
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    ((address, served, loop, ended),) = found
    try:
        yield address, served
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def requests(n: int) -> list[bytes]:
    return [post("/predict", b"%d" % i) for i in range(n)]


def test_requests_are_asked_in_their_order_and_bodies_returned() -> None:
    with listening(lambda: Script(lambda _: REPLY)) as (address, script):
        assert ask(address, requests(3)) == [b"{}"] * 3
    assert script.bodies == [b"0", b"1", b"2"]


def test_an_answer_that_is_no_200_is_told_when_asked() -> None:
    with listening(lambda: Script(lambda _: BUSY)) as (address, _), pytest.raises(LoadError, match="status 503"):
        ask(address, requests(1))


def test_a_closed_loop_keeps_its_concurrency_and_goes_round_the_requests() -> None:
    with listening(lambda: Script(lambda _: REPLY)) as (address, script):
        measured = closed_loop(address, requests(10), concurrency=4, seconds=0.2)
    assert script.most == 4
    assert len(measured.latencies) == len(script.bodies) > 20
    assert measured.answered == 1
    assert sorted(set(script.bodies)) == [b"%d" % i for i in range(10)]
    assert measured.failed == 0
    assert measured.quantile(0.5) >= 0.001
    assert measured.seconds >= 0.2 > measured.cpu_seconds


def test_refusals_are_counted_and_the_first_is_kept() -> None:
    with listening(lambda: Script(lambda n: BUSY if n % 4 == 0 else REPLY)) as (address, script):
        measured = closed_loop(address, requests(1), concurrency=1, seconds=0.1)
    assert measured.failed == -(-len(script.bodies) // 4)
    assert len(measured.latencies) == len(script.bodies) - measured.failed
    assert measured.refusal == b"busy"


def test_an_open_loop_measures_what_was_not_refused() -> None:
    with listening(lambda: Script(lambda n: BUSY if n % 5 == 0 else REPLY)) as (address, _):
        measured = open_loop(address, requests(50), constant(200, 0.25), connections=1)
    assert (measured.failed, len(measured.latencies), measured.answered) == (10, 40, 0.8)
    assert measured.latencies.min() >= 0.001


def test_a_server_that_hangs_up_is_an_error() -> None:
    with listening(lambda: Script(lambda _: b"")) as (address, _), pytest.raises(LoadError, match="hung up"):
        closed_loop(address, requests(1), concurrency=1, seconds=1)


def test_an_open_loop_sends_when_requests_are_due() -> None:
    due = constant(100, 0.5)
    with listening(lambda: Script(lambda _: REPLY)) as (address, script):
        measured = open_loop(address, requests(50), due)
    assert script.bodies == [b"%d" % i for i in range(50)]
    assert measured.seconds >= due[-1]
    assert len(measured.late) == 50
    assert (measured.late >= 0).all()


def test_a_stall_is_charged_for_every_request_that_was_due_meanwhile() -> None:
    """Forty are due while the server stalls; a closed loop would have sent one."""
    with listening(lambda: Script(lambda _: REPLY, stall_at=20)) as (address, _):
        measured = open_loop(address, requests(100), constant(100, 1))
    waited = measured.latencies[20:60]
    assert waited[0] >= STALL_S
    assert (measured.latencies > STALL_S / 4).sum() >= 25
    assert waited[0] > waited[15] > waited[30]


def test_requests_wait_for_a_connection_where_all_are_taken() -> None:
    with listening(lambda: Script(lambda _: REPLY, stall_at=5)) as (address, script):
        measured = open_loop(address, requests(60), constant(100, 0.6), connections=2)
    assert script.most <= 2
    assert len(script.bodies) == 60
    assert (measured.late > STALL_S / 4).sum() >= 15


def test_a_crowd_asks_again_at_once_and_the_polite_are_counted_apart() -> None:
    with listening(lambda: Script(lambda n: BUSY if n % 2 else REPLY)) as (address, script):
        found = crowd(address, requests(10), requests(1), connections=20, seconds=0.5)
    assert found.rate + found.refusals <= len(script.bodies) / 0.5 < (found.rate + found.refusals) * 2
    assert found.offered > 1.5 * found.rate
    assert 0 < found.polite < 1
    assert 0 < len(found.polite_latencies) < len(found.latencies) / 5
    assert 0 < found.turns.sum() < 1


def test_what_a_crowd_cannot_send_is_offered_all_the_same() -> None:
    with listening(lambda: Script(lambda _: REPLY)) as (address, _):
        found = crowd(address, requests(10), requests(1), connections=2, seconds=0.5, rate=100_000)
    assert 90_000 < found.offered <= 100_000
    assert found.rate < 10_000
    assert (found.refusals, found.polite > 0.5) == (0, True)
