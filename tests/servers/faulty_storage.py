"""A proxy before a storage that speaks S3, which answers some requests as a storage in trouble does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args

Trouble = Literal["500", "503", "slow", "half a body", "hang", "reply lost"]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
_ANSWER_S = 60.0
_OF_THE_CONNECTION = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


class FaultyStorage:
    """Passes requests on, but for those from one to another.

    Args:
        target: address of the storage.
        pause_s: seconds until a request that hangs ends without an answer; a slow answer comes after a third of them.

    Attributes:
        requests: their number until now.
        troubled: how many of them were answered badly.
    """

    def __init__(self, target: str, pause_s: float) -> None:
        self.target, self.pause_s = target, pause_s
        self.requests = self.troubled = 0
        self._first = self._last = 0
        self._trouble: Trouble = "500"
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def begin(self, first: int, n: int, trouble: Trouble) -> None:
        """Answer n requests badly, after some that are passed on."""
        self._first, self._last, self._trouble = self.requests + first, self.requests + first + n, trouble

    def next_trouble(self) -> Trouble | None:
        """Count a request, and return what happens to it."""
        with self._lock:
            self.requests += 1
            if not self._first <= self.requests < self._last:
                return None
            self.troubled += 1
            return self._trouble

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer requests during a block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyStorage
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        trouble = self.proxy.next_trouble()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if trouble == "slow":
            time.sleep(self.proxy.pause_s / 3)
        if trouble == "hang":
            time.sleep(self.proxy.pause_s)
            self.close_connection = True
        elif trouble in {"500", "503"}:
            self._reply(int(trouble), HTTPMessage(), b"<Error><Code>SlowDown</Code></Error>")
        else:
            self._pass_on(body, trouble)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the library's names

    def _pass_on(self, body: bytes, trouble: Trouble | None) -> None:
        address = self.proxy.target.removeprefix("http://")
        with closing(HTTPConnection(address, timeout=_ANSWER_S)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            reply = connection.getresponse()
            data = reply.read()
            if trouble == "reply lost":
                self.close_connection = True
            else:
                self._reply(reply.status, reply.headers, data, is_half=trouble == "half a body", head=reply)

    def _reply(
        self, status: int, headers: HTTPMessage, data: bytes, *, is_half: bool = False, head: HTTPResponse | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        length = len(data) if head is None or self.command != "HEAD" else head.headers.get("Content-Length", "0")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if is_half else data)
        if is_half:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""
