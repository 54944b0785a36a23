"""A receiver of webhooks: keeps what it accepted, and answers as told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """One request, with lower-case names of headers."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class HookReply:
    """One reply; ``wait``: an event that is waited for before it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None


@dataclass
class WebhookReceiver:
    """The requests, and the answer to each; ``url`` is empty while it is stopped."""

    answer: Callable[[Request], HookReply] = lambda _: HookReply()
    requests: list[Request] = field(default_factory=list)
    accepted: list[Request] = field(default_factory=list)
    url: str = ""
    port: int = 0

    def start(self) -> None:
        """Listen on the port of last time, or on a free one."""
        receiver = self

        class WebhookHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request({name.lower(): value for name, value in self.headers.items()}, body)
                receiver.requests.append(request)
                reply = receiver.answer(request)
                if reply.wait is not None:
                    reply.wait.wait(60)
                if reply.status in range(200, 300):
                    receiver.accepted.append(request)
                self.send_response(reply.status)
                for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        class WebhookServer(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """Write nothing: a client may leave."""

        self._server = WebhookServer(("127.0.0.1", self.port), WebhookHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/decisions"

    def stop(self) -> None:
        """Refuse connections; those that are open are answered until their client closes them."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    """Serve a receiver on a free port."""
    receiver = WebhookReceiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
