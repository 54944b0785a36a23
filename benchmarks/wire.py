"""Commands made ready ahead and pushed through a socket, as ``redis-cli --pipe`` does: the server's own limit."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

import pyarrow as pa

from skewless.infra.reads.online.resp import BulkStrings, command

_RECEIVE = 1 << 16
_PART = 1 << 20


def set_commands(keys: pa.LargeBinaryArray, rows: pa.LargeBinaryArray) -> bytes:
    """Return one SET per row."""
    head, names, values = command(b"SET", extra=2), BulkStrings(keys), BulkStrings(rows)
    return b"".join(head + names.cut(i, i + 1) + values.cut(i, i + 1) for i in range(len(keys)))


def script_commands(sha: bytes, keys: pa.LargeBinaryArray, rows: pa.LargeBinaryArray, size: int) -> bytes:
    """Return calls of a script with ``size`` keys each."""
    names, values = BulkStrings(keys), BulkStrings(rows)
    calls: list[bytes | memoryview] = []
    for start in range(0, len(keys), size):
        stop = min(start + size, len(keys))
        head = command(b"EVALSHA", sha, b"%d" % (stop - start), extra=2 * (stop - start))
        calls += [head, names.cut(start, stop), values.cut(start, stop)]
    return b"".join(calls)


def push(url: str, commands: bytes, replies: int) -> None:
    """Send everything and wait until so many one-line replies came.

    Raises:
        ConnectionError: a reply is an error, or the server hung up.
    """
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port or 6379)) as connection:
        failures: list[str] = []
        reader = threading.Thread(target=_read, args=(connection, replies, failures))
        reader.start()
        view = memoryview(commands)
        for start in range(0, len(view), _PART):
            connection.sendall(view[start : start + _PART])
        reader.join()
    if failures:
        raise ConnectionError(failures[0])


def _read(connection: socket.socket, replies: int, failures: list[str]) -> None:
    while replies > 0:
        received = connection.recv(_RECEIVE)
        if not received or received.startswith(b"-") or b"\n-" in received:
            failures.append(received[:200].decode(errors="replace") or "the server hung up")
            return
        replies -= received.count(b"\n")
