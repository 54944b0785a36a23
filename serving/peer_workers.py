"""The other workers of a server, asked over the sockets on which each takes orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httptools

_PATIENCE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerReply:
    """What one worker answered."""

    worker: int
    status: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class PeerWorkers:
    """All workers but one.

    Args:
        folder: where the sockets are; only the owner of the server may enter it.
        number: of the worker that asks, from 0.
        count: workers of the server, the one that asks among them.
        on_silent: told whenever a worker could not be asked, or did not answer in time.
    """

    folder: Path
    number: int
    count: int
    on_silent: Callable[[], None] = lambda: None

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, timeout_s: float = _PATIENCE_S
    ) -> list[WorkerReply]:
        """Ask all others at once; return the replies in the order of the workers, without those that gave none."""
        others = [number for number in range(self.count) if number != self.number]
        replies = await asyncio.gather(*(self._ask(number, method, path, body, timeout_s) for number in others))
        return [reply for reply in replies if reply is not None]

    async def _ask(self, number: int, method: str, path: str, body: bytes, timeout_s: float) -> WorkerReply | None:
        head = f"{method} {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        kind = "Content-Type: application/json\r\n\r\n"
        try:
            async with asyncio.timeout(timeout_s):
                data = await _exchange(socket_of(self.folder, number), f"{head}{kind}".encode() + body)
            return _Parsed(data).reply(number)
        except (OSError, httptools.HttpParserError):  # a timeout is one of the first
            self.on_silent()
            return None


def socket_of(folder: Path, number: int) -> Path:
    """Return where a worker takes orders."""
    return folder / f"{number}.sock"


async def _exchange(place: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(place)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()


class _Parsed:
    """A whole HTTP reply, as httptools tells of it."""

    def __init__(self, data: bytes) -> None:
        self._parts: list[bytes] = []
        self._whole = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self._whole = True

    def reply(self, worker: int) -> WorkerReply:
        if not self._whole:
            raise httptools.HttpParserError("the reply was cut off")
        return WorkerReply(worker=worker, status=self._parser.get_status_code(), body=b"".join(self._parts))
