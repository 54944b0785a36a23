"""Bytes that are written and read past the event loop arrive complete and in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from skewless.infra.reads.online.link import RawSocket
from tests.worlds.waiting import PATIENCE_S


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[RawSocket, socket.socket, asyncio.WriteTransport]]:
    """A transport with its bare socket, and the other end, which blocks."""
    near, far = socket.socketpair()
    far.settimeout(PATIENCE_S)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    bare = RawSocket.of_transport(transport)
    assert bare is not None
    try:
        yield bare, far, transport
    finally:
        transport.abort()
        far.close()


def test_a_message_is_there_before_the_loop_turns() -> None:
    async def scene() -> bytes:
        async with pair() as (bare, far, _):
            bare.write(b"now")
            return far.recv(10)

    assert asyncio.run(scene()) == b"now"


def test_a_message_larger_than_the_system_takes_arrives_whole_and_in_order() -> None:
    big = bytes(range(256)) * 40_000

    async def scene() -> bytes:
        async with pair() as (bare, far, transport):
            bare.write(big)
            assert transport.get_write_buffer_size() > 0
            bare.write(b"end")
            got = b""
            while not got.endswith(b"end"):
                got += await asyncio.to_thread(far.recv, 1 << 16)
            return got

    assert asyncio.run(scene()) == big + b"end"


def test_what_lies_there_is_read_at_once() -> None:
    async def scene() -> bytes:
        async with pair() as (bare, far, _):
            far.send(b"reply")
            return bare.poll()

    assert asyncio.run(scene()) == b"reply"


def test_waiting_in_vain_is_not_tried_again_soon() -> None:
    async def scene() -> list[bytes]:
        async with pair() as (bare, far, _):
            vain = bare.poll()
            far.send(b"late")
            return [vain, *(bare.poll() for _ in range(51))]

    assert asyncio.run(scene()) == [b""] * 51 + [b"late"]


@pytest.mark.parametrize("end", ["closed", "reset"])
async def test_a_broken_connection_is_left_to_the_loop(end: str) -> None:
    near, far = socket.socketpair()
    lost = asyncio.Event()

    class Watching(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
            lost.set()

    transport, _ = await asyncio.get_running_loop().create_connection(Watching, sock=near)
    bare = RawSocket.of_transport(transport)
    assert bare is not None
    if end == "reset":
        bare.write(b"unread")
    far.close()
    found = bare.poll()
    bare.write(b"nobody reads this")
    await asyncio.wait_for(lost.wait(), PATIENCE_S)
    assert found == b""
