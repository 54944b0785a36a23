"""Requests to the other workers of a server, over their control sockets."""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_TIMEOUT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerReply:
    """Reply of one worker."""

    worker: int
    status: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class PeerWorkers:
    """All workers except this one.

    Args:
        folder: folder of the sockets; only the owner of the server may enter it.
        number: number of this worker, from 0.
        count: number of all workers of the server.
        on_no_reply: called whenever a worker cannot be reached, or does not reply in time.
    """

    folder: Path
    number: int
    count: int
    on_no_reply: Callable[[], None] = lambda: None

    async def send_request(self, method: str, path: str, *, timeout_s: float = _TIMEOUT_S) -> list[WorkerReply]:
        """Send a request to all other workers at once; return the replies, ordered by worker."""
        peers = [number for number in range(self.count) if number != self.number]
        replies = await asyncio.gather(*(self._send_request(number, method, path, timeout_s) for number in peers))
        return [reply for reply in replies if reply is not None]

    async def _send_request(self, number: int, method: str, path: str, timeout_s: float) -> WorkerReply | None:
        request = f"{method} {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        try:
            async with asyncio.timeout(timeout_s):
                data = await _exchange(socket_of(self.folder, number), request.encode())
            return _parse_reply(number, data)
        except (OSError, http.client.HTTPException):  # a TimeoutError is an OSError
            self.on_no_reply()
            return None


def socket_of(folder: Path, number: int) -> Path:
    """Return the control socket of a worker."""
    return folder / f"{number}.sock"


async def _exchange(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()


def _parse_reply(worker: int, data: bytes) -> WorkerReply:
    response = http.client.HTTPResponse(cast("socket.socket", _Received(data)))
    response.begin()
    return WorkerReply(worker=worker, status=response.status, body=response.read())


class _Received(io.BytesIO):
    """A complete reply in place of its socket."""

    def makefile(self, _mode: str) -> _Received:
        return self
