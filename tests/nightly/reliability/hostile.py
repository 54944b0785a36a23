"""Hostile or broken clients, and the bytes that a server sends until it closes the connection."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Mapping

import orjson

from benchmarks.http_wire import post
from tests.nightly.reliability.open_load import Target

_PATIENCE_S, _TAIL_S = 20.0, 0.2
_RECEIVE = 1 << 16
_MIB = 1 << 20
_RESET = struct.pack("ii", 1, 0)  # linger for no time: the connection is reset


def told(target: Target, parts: Iterable[bytes], patience_s: float = _PATIENCE_S) -> bytes:
    """Send parts until the server says something or hangs up; return all it says, with no more sent.

    Raises:
        TimeoutError: the server neither said anything nor hung up.
    """
    with target.connect() as connection:
        said: bytes | None = None
        try:
            for part in parts:
                connection.sendall(part)
                said = read_now(connection)
                if said is not None:
                    break
        except TimeoutError:
            raise
        except OSError:  # the server hung up: its last words may still be there
            said = read_now(connection)
        return said if said == b"" else read_to_end(connection, said or b"", patience_s)


def read_now(connection: socket.socket) -> bytes | None:
    """Return what has arrived; nothing: the server has hung up; None: neither."""
    connection.setblocking(False)  # noqa: FBT003 - the standard library's
    try:
        return connection.recv(_RECEIVE)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    except OSError:
        return b""
    finally:
        connection.settimeout(_PATIENCE_S)


def read_to_end(connection: socket.socket, said: bytes = b"", patience_s: float = _PATIENCE_S) -> bytes:
    """Return bytes until the server closes the connection, or is silent for a while after a reply.

    Raises:
        TimeoutError: it says nothing at all.
    """
    try:
        while True:
            connection.settimeout(_TAIL_S if said else patience_s)
            data = connection.recv(_RECEIVE)
            if not data:
                return said
            said += data
    except TimeoutError:
        if not said:
            raise
    except OSError:  # reset
        pass
    return said


def huge(path: str, headers: Mapping[str, str], *, chunked: bool) -> Iterable[bytes]:
    """Yield a body of 64 MiB."""
    length = "transfer-encoding: chunked" if chunked else f"content-length: {64 * _MIB}"
    yield _head(path, headers) + length.encode() + b"\r\n\r\n"
    piece = b" " * _MIB
    for _ in range(64):
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece


def many_headers(path: str, headers: Mapping[str, str]) -> Iterable[bytes]:
    """Yield 10,000 header lines."""
    yield _head(path, headers)
    for first in range(0, 10_000, 100):
        yield b"".join(b"x-%d: y\r\n" % i for i in range(first, first + 100))
    yield b"content-length: 0\r\n\r\n"


def long_header(path: str, headers: Mapping[str, str]) -> Iterable[bytes]:
    """Yield a header of 1 MiB."""
    yield _head(path, headers) + b"x-long: "
    for _ in range(64):
        yield b"y" * (_MIB // 64)
    yield b"\r\ncontent-length: 0\r\n\r\n"


def long_target(path: str, headers: Mapping[str, str]) -> Iterable[bytes]:
    """Yield a first line of 1 MiB."""
    yield _head(f"{path}?{'x' * _MIB}", headers)


def truncated_tensor(path: str, promised: int, sent: bytes, headers: Mapping[str, str]) -> Iterable[bytes]:
    """Yield an infer request whose binary tensor is not as long as it says."""
    tensor = {"name": "card_id", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": promised}}
    head = orjson.dumps({"inputs": [tensor]})
    yield post(path, head + sent, {"inference-header-content-length": str(len(head)), **headers})


def reset(target: Target, part: bytes) -> None:
    """Send something and reset the connection."""
    connection = target.connect()
    connection.sendall(part)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


def stuffed(target: Target, request: bytes, seconds: float) -> int:
    """Send requests without reading a reply, as long as the server takes them; return how many bytes it took."""
    with target.connect() as connection:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's
        taken, offset, end = 0, 0, time.monotonic() + seconds
        while time.monotonic() < end and select.select([], [connection], [], 0.2)[1]:
            try:
                sent = connection.send(request[offset:])
            except OSError:
                break
            taken, offset = taken + sent, (offset + sent) % len(request)
        return taken


class Drip:
    """Connections that send the start of something at once, and the rest a byte now and then."""

    def __init__(self, target: Target, n: int, start: bytes, text: bytes) -> None:
        self._all = [target.connect() for _ in range(n)]
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
        return sum(read_now(connection) != b"" for connection in self._all)

    def close(self) -> None:
        """Hang up."""
        for connection in self._all:
            connection.close()


def _head(path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in headers.items()), ""]
    return "\r\n".join(lines).encode()
