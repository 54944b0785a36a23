"""An HTTP server that does what a test tells it: it answers, breaks, keeps silent, and notes what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PREDICTED = {
    "model": "m",
    "version": "000001",
    "t": "2026-11-25T02:59:04.179000+00:00",
    "t_us": 1795575544179000,
    "log": "best_effort",
    "degraded": False,
    "predictions": [{"id": "a-1", "score": 0.25}],
}


def answer(status: int, body: object = None, *headers: str) -> bytes:
    """Return a whole reply."""
    content = b"" if body is None else json.dumps(body).encode()
    head = "\r\n".join((f"HTTP/1.1 {status} Said", *headers, f"Content-Length: {len(content)}", "\r\n"))
    return head.encode() + content


def refusal(status: int, kind: str, *headers: str) -> bytes:
    """Return a reply with an error of ours."""
    said = {"kind": kind, "thing": "the thing", "problem": "is wrong", "fix": "mend it", "value": 7}
    return answer(status, {"error": said}, *headers)


GOOD = answer(200, PREDICTED)
BROKEN = b""
"""The connection is closed instead of a reply."""
SILENT = b"..."
"""Nothing comes until the server stops, or the client leaves."""
HELD = b"(held)"
"""The good reply comes once ``release`` is set."""
SLOW = b"(slow)" + GOOD
"""The good reply comes a byte at a time, over some seconds."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    connection: int
    line: str
    headers: dict[str, str]
    body: Any


@dataclass(kw_only=True)
class Scripted:
    """Answers each request with the next step, and with the last one ever after.

    Args:
        reads: whether it reads the body before it answers.
    """

    listener: socket.socket
    steps: list[bytes]
    tls: ssl.SSLContext | None = None
    reads: bool = True
    release: threading.Event = field(default_factory=threading.Event)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        threads = []
        while not self.stopped.is_set():
            try:
                peer, _ = self.listener.accept()
            except OSError:
                break
            self.connections += 1
            self.open.append(peer)
            threads.append(threading.Thread(target=self._talk, args=(peer, self.connections)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def hang_up(self) -> None:
        """Close every connection, as a server does that restarts or finds them idle."""
        for peer in self.open:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _talk(self, peer: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                peer = self.tls.wrap_socket(peer, server_side=True)
                self.open.append(peer)
            with peer, peer.makefile("rb") as stream:
                while (asked := _read(stream, number, reads=self.reads)) is not None and self._reply(peer, asked):
                    pass
        except OSError:
            peer.close()

    def _reply(self, peer: socket.socket, asked: Asked) -> bool:
        with self.lock:
            self.asked.append(asked)
            step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if step == SILENT:
            peer.recv(1)
            return False
        if step == HELD:
            self.release.wait(20)
            step = GOOD
        for part in _pieces(step):
            peer.sendall(part)
        return step != BROKEN and b"onnection: close" not in step


def _pieces(step: bytes) -> Iterator[bytes]:
    if not step.startswith(b"(slow)"):
        yield step
        return
    for at in range(len(GOOD)):
        yield GOOD[at : at + 1]
        time.sleep(0.02)


def _read(stream: Any, number: int, *, reads: bool) -> Asked | None:  # noqa: ANN401 - a buffered socket
    line = stream.readline().decode().strip()
    if not line:
        return None
    headers = {}
    while text := stream.readline().decode().strip():
        name, _, value = text.partition(": ")
        headers[name.lower()] = value
    body = stream.read(int(headers.get("content-length", 0))) if reads else b""
    return Asked(connection=number, line=line, headers=headers, body=json.loads(body) if body else None)


@contextmanager
def scripted(*steps: bytes, tls: ssl.SSLContext | None = None, reads: bool = True) -> Iterator[Scripted]:
    """Run such a server for a while."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Scripted(listener=listener, steps=list(steps), tls=tls, reads=reads)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.hang_up()
        thread.join(10)
        assert not thread.is_alive()


def nobody() -> str:
    """Return a URL at which no server is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def lines(asked: Sequence[Asked]) -> list[str]:
    """Return the request lines."""
    return [one.line for one in asked]
