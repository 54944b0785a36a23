"""A link gives each reply to its caller, whatever the wire does; the wire here is a list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from skewless.infra.reads.online.link import StoreLink

PATIENCE_S = 0.2
LONG_S = 30.0


class LinkWire:
    """The transport of a link; it opens on request."""

    def __init__(self) -> None:
        self.transport = self
        self.written: list[bytes] = []
        self.aborted = False
        self.opened = asyncio.Event()
        self.refusal: Exception | None = None

    async def dial(self, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
        assert isinstance(protocol, StoreLink)
        await self.opened.wait()
        if self.refusal is not None:
            raise self.refusal
        return cast("asyncio.StreamWriter", self)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_extra_info(self, _name: str) -> None:
        return None  # no socket

    def abort(self) -> None:
        self.aborted = True


class Talk:
    """A link over a wire, and what came to its callers."""

    def __init__(self, timeout_s: float = LONG_S) -> None:
        self.wire = LinkWire()
        self.link = StoreLink(self.wire.dial, timeout_s)
        self.came: list[tuple[int, Any]] = []

    async def open(self) -> None:
        self.wire.opened.set()
        await turns()

    def ask(self, caller: int) -> None:
        self.link.send(b"%d;" % caller, self.taker(caller))

    def taker(self, caller: int) -> Callable[[Any], None]:
        return lambda reply: self.came.append((caller, reply))

    def kinds(self) -> list[tuple[int, type]]:
        return [(caller, type(reply)) for caller, reply in self.came]


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@asynccontextmanager
async def talk(timeout_s: float = LONG_S) -> AsyncIterator[Talk]:
    """Hold a conversation; the link is closed afterwards."""
    one = Talk(timeout_s)
    try:
        yield one
    finally:
        await one.link.close()


async def test_what_is_asked_before_the_connection_stands_is_sent_in_order() -> None:
    async with talk() as it:
        for caller in range(3):
            it.ask(caller)
        await turns()
        assert it.wire.written == []
        await it.open()
        it.ask(3)
        await turns()
        assert b"".join(it.wire.written) == b"0;1;2;3;"
        it.link.data_received(b":10\r\n:11\r\n:12\r\n:13\r\n")
        assert it.came == [(0, 10), (1, 11), (2, 12), (3, 13)]


async def test_one_who_asks_alone_is_not_kept_waiting_and_many_share_a_call_of_the_system() -> None:
    async with talk() as it:
        await it.open()
        it.ask(0)
        assert it.wire.written == [b"0;"]
        for caller in range(1, 9):
            it.ask(caller)
        await turns()
        assert it.wire.written == [b"0;", b"1;2;3;4;5;6;7;8;"]


async def test_replies_come_in_any_pieces() -> None:
    stream = b"*2\r\n$3\r\na\r\n\r\n$-1\r\n:7\r\n-ERR no\r\n$5\r\n\r\n:1\r\r\n"
    async with talk() as it:
        await it.open()
        for caller in range(4):
            it.ask(caller)
        for i in range(len(stream)):
            it.link.data_received(stream[i : i + 1])
        assert [(caller, reply) for caller, reply in it.came if caller != 2] == [
            (0, [b"a\r\n", None]),
            (1, 7),
            (3, b"\r\n:1\r"),
        ]
        assert isinstance(dict(it.came)[2], ResponseError)
        assert not it.link.is_broken


async def test_several_commands_have_a_reply_each() -> None:
    async with talk() as it:
        await it.open()
        it.ask(0)
        it.link.send_all(b"1;2;", [it.taker(1), it.taker(2)])
        it.ask(3)
        it.link.data_received(b":0\r\n:1\r\n:2\r\n:3\r\n")
        assert it.came == [(i, i) for i in range(4)]


@pytest.mark.parametrize("bytes_", [b":1\r\n:2\r\n", b":1\r\n:", b":1\r\nwhat?\r\n"])
async def test_a_reply_that_nobody_asked_for_ends_the_link(bytes_: bytes) -> None:
    async with talk() as it:
        await it.open()
        it.ask(0)
        it.link.data_received(bytes_)
        assert it.came == [(0, 1)]
        assert it.link.is_broken
        assert it.wire.aborted


async def test_what_is_no_reply_at_all_ends_the_link_and_is_told_to_all() -> None:
    async with talk() as it:
        await it.open()
        it.ask(0)
        it.ask(1)
        it.link.data_received(b":1\r\nwhat?\r\n")
        assert it.kinds() == [(0, int), (1, InvalidResponse)]
        assert it.link.is_broken


@pytest.mark.parametrize("refusal", [RedisConnectionError("refused"), OSError("no file")])
async def test_all_who_wait_are_told_that_the_connection_cannot_be_opened(refusal: Exception) -> None:
    async with talk() as it:
        it.wire.refusal = refusal
        it.ask(0)
        it.ask(1)
        await it.open()
        assert it.came == [(0, refusal), (1, refusal)]
        assert it.link.is_broken


async def test_a_connection_that_is_lost_is_told_to_all_once() -> None:
    async with talk() as it:
        await it.open()
        it.ask(0)
        it.ask(1)
        it.link.connection_lost(None)
        it.link.connection_lost(OSError("again"))
        assert it.kinds() == [(0, RedisConnectionError), (1, RedisConnectionError)]
        assert "closed the connection" in str(it.came[0][1])


@pytest.mark.parametrize("opened", [True, False])
async def test_a_server_that_takes_too_long_is_given_up(opened: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with talk(PATIENCE_S) as it:
        if opened:
            await it.open()
        begun = time.monotonic()
        it.ask(0)
        it.ask(1)
        while not it.link.is_broken:
            assert time.monotonic() - begun < 20
            await asyncio.sleep(0.01)
        assert time.monotonic() - begun > PATIENCE_S / 2
        assert it.kinds() == [(0, RedisTimeoutError), (1, RedisTimeoutError)]
        assert it.wire.aborted is opened


async def test_a_loop_that_was_held_up_does_not_take_the_server_for_slow() -> None:
    async with talk(PATIENCE_S) as it:
        await it.open()
        it.ask(0)
        time.sleep(3 * PATIENCE_S)  # noqa: ASYNC251 - this is what is tested
        await turns()
        assert not it.link.is_broken
        it.link.data_received(b":5\r\n")
        assert it.came == [(0, 5)]


async def test_nobody_waits_and_no_timer_runs() -> None:
    async with talk(PATIENCE_S) as it:
        await it.open()
        it.ask(0)
        it.link.data_received(b":5\r\n")
        await asyncio.sleep(2 * PATIENCE_S)
        assert not it.link.is_broken
        assert it.link._timer is None


async def test_a_caller_who_was_cancelled_gets_his_reply_and_nobody_else_does() -> None:
    async with talk() as it:
        await it.open()
        calls = [asyncio.ensure_future(it.link.call(b"%d;" % i)) for i in range(5)]
        await turns()
        calls[0].cancel()
        calls[3].cancel()
        await turns()
        it.link.data_received(b"".join(b":%d\r\n" % i for i in range(5)))
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [found[i] for i in (1, 2, 4)] == [1, 2, 4]
        assert [type(found[i]) for i in (0, 3)] == [asyncio.CancelledError] * 2
        assert not it.link.is_broken


async def test_who_waits_is_told_when_the_link_is_closed() -> None:
    async with talk() as it:
        it.ask(0)
    assert it.kinds() == [(0, RedisConnectionError)]


async def test_a_callback_may_ask_again_and_close() -> None:
    async with talk() as it:
        await it.open()

        def again(reply: int) -> None:
            it.came.append((0, reply))
            it.link.send(b"again;", it.link.abort)

        it.link.send(b"0;", again)
        it.ask(1)
        await turns()
        it.link.data_received(b":0\r\n:1\r\n")
        assert it.came == [(0, 0), (1, 1)]
        await turns()
        assert it.wire.written[-1] == b"again;"
        it.ask(2)
        it.link.data_received(b"-ERR stop\r\n:2\r\n")
        assert it.kinds()[2:] == [(2, ResponseError)]
        assert it.link.is_broken
