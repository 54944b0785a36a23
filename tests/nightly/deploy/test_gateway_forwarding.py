"""What a gateway sends to servers: headers, and repeats only where they are safe."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from skewless.contract.settings import Settings
from tests.nightly.deploy.gateways import HOST, KINDS, running_gateway
from tests.worlds.waiting import until

pytestmark = pytest.mark.soak
LONGEST = {"nginx": Settings().body_bytes, "haproxy": 60_000, "envoy": Settings().body_bytes}  # repeated bodies, bytes


class _Echo(BaseHTTPRequestHandler):
    """Replies with the headers of a request; fails as its header ``x-fault`` says, and counts the requests."""

    protocol_version = "HTTP/1.1"
    counts: ClassVar[Counter[str]] = Counter()
    busy: ClassVar[set[int]] = set()  # ports of servers that reject predictions

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.headers.get("x-fault")
        port = self.connection.getsockname()[1]
        if port in self.busy and self.path == "/predict":
            fault = "busy"
        self.counts[f"{self.path} {fault}"] += 1
        self.counts[f"server {port}"] += self.path == "/predict"
        if fault == "end":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = json.dumps([(name.lower(), value) for name, value in self.headers.items()]).encode()
        self.send_response(503 if fault == "busy" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def echo() -> Iterator[int]:
    with ThreadingHTTPServer((HOST, 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gateway_says_who_asks_and_forwards_the_rest(kind: str, tmp_path: Path) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    same = {"traceparent": trace, "tracestate": "a=b", "x-request-id": "mine", "x-api-key": "sk_a", "x-sticky-key": "7"}
    same |= {"authorization": "Bearer sk_b", "content-type": "application/json"}
    lies = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "http", "forwarded": "for=6.6.6.6"}
    lies |= {"x-envoy-retry-on": "5xx", "x-envoy-external-address": "6.6.6.6"} if kind == "envoy" else {}
    with echo() as port, running_gateway(kind, tmp_path, (port, port, port)) as gateway:
        until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
        seen = _pairs(gateway.ask("POST", "/predict", b"{}", {**same, **lies})[2])
        own = [_pairs(gateway.ask("POST", "/predict", b"{}")[2])["x-request-id"] for _ in range(2)]
    assert {name: seen[name] for name in same} == same
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == (HOST, "https")
    assert not {"forwarded", "x-envoy-retry-on", "x-envoy-external-address"} & set(seen)
    assert own[0] != own[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["busy", "end"])
def test_only_safe_requests_are_repeated(kind: str, fault: str, tmp_path: Path) -> None:
    body = b"{}".ljust(LONGEST[kind])
    safe, unsafe = ("/predict", "/v2/models/fraud/infer", "/feedback"), ("/events/payments", "/push")
    _Echo.counts.clear()
    with echo() as port:
        for path in safe + unsafe:
            folder = tmp_path / path.replace("/", "-")
            folder.mkdir()
            # A new gateway each time: it may avoid servers that have failed.
            with running_gateway(kind, folder, (port, port, port)) as gateway:
                until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
                with contextlib.suppress(RemoteDisconnected):  # of HAProxy, if a connection ends that it reused
                    assert gateway.ask("POST", path, body, {"x-fault": fault})[0] in {502, 503}
    attempts = {path: _Echo.counts[f"{path} {fault}"] for path in safe + unsafe}
    assert min(attempts[path] for path in safe) > 1, attempts
    assert {attempts[path] for path in unsafe} == {1}, attempts


@pytest.mark.parametrize("kind", KINDS)
def test_a_rejected_request_goes_to_another_server(kind: str, tmp_path: Path) -> None:
    with (
        echo() as first,
        echo() as second,
        echo() as third,
        running_gateway(kind, tmp_path, (first, second, third)) as gateway,
    ):
        until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
        _Echo.busy.add(second)
        seen = Counter(gateway.ask("POST", "/predict", b"{}", {"x-sticky-key": f"{i}"})[0] for i in range(200))
        _Echo.busy.clear()
        # It is still asked: a server that rejects some requests has not failed.
        _Echo.counts.clear()
        after = [gateway.ask("POST", "/predict", b"{}", {"x-sticky-key": f"{i}"})[0] for i in range(60)]
    # HAProxy chooses a server for each of its four attempts: one request of 81 meets the same server four times.
    assert seen[503] <= (10 if kind == "haproxy" else 0), seen
    assert seen[200] + seen[503] == 200
    assert after == [200] * 60
    assert _Echo.counts[f"server {second}"] > 5


def _pairs(body: bytes) -> dict[str, Any]:
    pairs = json.loads(body)
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)
