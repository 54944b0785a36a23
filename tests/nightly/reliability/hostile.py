"""Hostile or broken clients: each returns the bytes that the server sent until it closed the connection."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable

import orjson

from benchmarks.http_wire import post

Address = tuple[str, int]
_PATIENCE_S = 20.0
_RECEIVE = 1 << 16
_MIB = 1 << 20
_RESET = struct.pack("ii", 1, 0)  # linger for no time: the connection is reset


def connected(address: Address) -> socket.socket:
    """Return a connection that sends at once."""
    connection = socket.create_connection(address, timeout=_PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def told(address: Address, parts: Iterable[bytes]) -> bytes:
    """Send parts until the server says something or hangs up; return all it says, with no more sent."""
    with connected(address) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                if select.select([connection], [], [], 0)[0]:
                    break
        return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    """Return bytes until the server closes the connection, or is silent for half a second after a reply."""
    said = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while data := connection.recv(_RECEIVE):
            said += data
            connection.settimeout(0.5)
    return said


def huge(path: str, *, chunked: bool) -> Iterable[bytes]:
    """Yield a body of 64 MiB."""
    length = "transfer-encoding: chunked" if chunked else f"content-length: {64 * _MIB}"
    yield f"POST {path} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n".encode()
    piece = b" " * _MIB
    for _ in range(64):
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece


def many_headers(path: str) -> Iterable[bytes]:
    """Yield 10,000 header lines."""
    yield f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode()
    for first in range(0, 10_000, 100):
        yield b"".join(b"x-%d: y\r\n" % i for i in range(first, first + 100))
    yield b"content-length: 0\r\n\r\n"


def long_header(path: str) -> Iterable[bytes]:
    """Yield a header of 1 MiB."""
    yield f"POST {path} HTTP/1.1\r\nhost: x\r\nx-long: ".encode()
    for _ in range(64):
        yield b"y" * (_MIB // 64)
    yield b"\r\ncontent-length: 0\r\n\r\n"


def deep(path: str, bracket: bytes = b"[") -> Iterable[bytes]:
    """Yield JSON 100,000 brackets deep."""
    yield post(path, b'{"rows": ' + bracket * 100_000)


def longer_than_said(path: str, body: bytes) -> Iterable[bytes]:
    """Yield a request with a body longer than its content-length."""
    whole = post(path, body)
    yield whole.replace(b"content-length: %d" % len(body), b"content-length: %d" % (len(body) // 2))


def truncated_tensor(path: str, promised: int, sent: bytes) -> Iterable[bytes]:
    """Yield an infer request whose binary tensor is not as long as it says."""
    tensor = {"name": "card_id", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": promised}}
    head = orjson.dumps({"inputs": [tensor]})
    yield post(path, head + sent, {"inference-header-content-length": str(len(head))})


def reset(address: Address, part: bytes) -> None:
    """Send something and reset the connection."""
    connection = connected(address)
    connection.sendall(part)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


def stuffed(address: Address, request: bytes, seconds: float) -> int:
    """Send requests without reading a reply, as long as the server takes them; return how many bytes it took."""
    with connected(address) as connection:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's
        taken, offset, end = 0, 0, time.monotonic() + seconds
        while time.monotonic() < end and select.select([], [connection], [], 0.2)[1]:
            try:
                sent = connection.send(request[offset:])
            except (BlockingIOError, ConnectionError):
                break
            taken, offset = taken + sent, (offset + sent) % len(request)
        return taken


class Drip:
    """Connections that send the start of something at once, and the rest a byte now and then."""

    def __init__(self, address: Address, n: int, start: bytes, text: bytes) -> None:
        self._all = [connected(address) for _ in range(n)]
        for connection in self._all:
            connection.sendall(start)
        self._text = text
        self._sent = 0

    def drop(self) -> None:
        """Send the next byte, on all that the server has not hung up on."""
        piece = self._text[self._sent : self._sent + 1]
        self._sent += 1
        for connection in self._all:
            with contextlib.suppress(OSError):
                connection.send(piece)

    def open(self) -> int:
        """Return how many the server has not hung up on."""
        return sum(_is_open(connection) for connection in self._all)

    def close(self) -> None:
        """Hang up."""
        for connection in self._all:
            connection.close()


def _is_open(connection: socket.socket) -> bool:
    if not select.select([connection], [], [], 0)[0]:
        return True
    try:
        return bool(connection.recv(_RECEIVE, socket.MSG_PEEK))
    except OSError:
        return False
