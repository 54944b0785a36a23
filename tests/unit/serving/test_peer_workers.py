"""Workers asked over sockets: those that answer, and all the ways not to."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from skewless.serving.peer_workers import PeerWorkers, WorkerReply, socket_of

ConnectionHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="sk-") as name:
        yield Path(name)


def asked(
    folder: Path, answers: dict[int, ConnectionHandler], count: int = 3, timeout_s: float = 10.0
) -> tuple[list[WorkerReply], int]:
    """Return what worker 0 hears from the others, and how many said nothing."""
    silent: list[None] = []

    async def ask() -> list[WorkerReply]:
        servers = [await asyncio.start_unix_server(answer, socket_of(folder, n)) for n, answer in answers.items()]
        peers = PeerWorkers(folder=folder, number=0, count=count, on_no_reply=lambda: silent.append(None))
        replies = await peers.send_request("POST", "/path?a=b", timeout_s=timeout_s)
        for server in servers:
            server.close()
        return replies

    return asyncio.run(ask()), len(silent)


def saying(data: bytes) -> ConnectionHandler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
        finally:
            writer.close()

    return answer


def test_replies_come_in_the_order_of_the_workers(folder: Path) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await saying(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")(reader, writer)

    chunked = saying(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntw\r\n1\r\no\r\n0\r\n\r\n")
    replies, silent = asked(folder, {1: slow, 2: chunked})
    assert replies == [WorkerReply(worker=1, status=200, body=b"one"), WorkerReply(worker=2, status=503, body=b"two")]
    assert silent == 0


def test_the_request_arrives_whole(folder: Path) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    asked(folder, {1: answer, 2: never})
    assert heard[0].startswith(b"POST /path?a=b HTTP/1.1\r\n")
    assert b"Content-Length: 0\r\n" in heard[0]


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read()  # until who asked has gone
    finally:
        writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        saying(b""),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\ncut"),
        saying(b"no HTTP at all\r\n\r\n"),
        hang,
    ],
    ids=["gone", "closes", "incomplete", "garbled", "hangs"],
)
def test_who_does_not_answer_is_left_out_and_counted(folder: Path, answer: ConnectionHandler | None) -> None:
    good = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    answers = {2: good} if answer is None else {1: answer, 2: good}
    replies, silent = asked(folder, answers, timeout_s=0.5 if answer is hang else 10.0)
    assert replies == [WorkerReply(worker=2, status=200, body=b"ok")]
    assert silent == 1


def test_the_only_worker_asks_nobody(folder: Path) -> None:
    assert asked(folder, {}, count=1) == ([], 0)
