"""Ids of requests on a real socket: returned, made for errors, and in the lines of the request."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from typing import Any, cast

import pytest
import uvicorn

from skewless.contract.clock import SystemClock
from skewless.infra.platform.telemetry.logger import FORMAT_VARIABLE, LEVEL_VARIABLE
from skewless.infra.reads.online.port import OnlineReader
from skewless.serving.app import ServingContext, create_app, hot_routes
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.worlds.waiting import until

ID = "checkout-17"
Reply = tuple[int, list[str], str]


async def _serve(link: socket.socket, servers: list[uvicorn.Server]) -> None:
    serving = ServingContext(
        models=cast("ModelTable", None),  # every valid request meets a defect
        predictor=Predictor(online=cast("OnlineReader", None), clock=SystemClock(), log=None),
        metrics=Metrics(),
        events=cast("EventForwarder", None),
        feedback=cast("Feedback", None),
        reload_seconds=3_600,
    )
    routes = hot_routes(serving)
    fast = make_protocol(routes, WireLimits(body_bytes=1_000))
    servers.append(uvicorn.Server(uvicorn.Config(create_app(serving, routes), http=fast, log_config=None)))
    await servers[0].serve(sockets=[link])


@pytest.fixture(scope="module")
def faulty_port() -> Iterator[int]:
    link, servers = socket.create_server(("127.0.0.1", 0)), cast("list[uvicorn.Server]", [])
    thread = threading.Thread(target=lambda: asyncio.run(_serve(link, servers)))
    thread.start()
    until(lambda: servers and servers[0].started)
    yield link.getsockname()[1]
    servers[0].should_exit = True
    thread.join(20)
    link.close()


def ask(port: int, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Reply:
    """Return status, the ids, and the text of a reply."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, dict(headers))
        reply = connection.getresponse()
        return reply.status, reply.headers.get_all("x-request-id") or [], reply.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/predict", '{"rows": 7}', 400),
        ("POST", "/predict", '{"rows": [{}]}', 500),
        ("POST", "/predict", "x" * 2_000, 413),
        ("PUT", "/predict", "", 405),
        ("GET", "/nowhere", None, 404),
        ("GET", "/models/m", None, 500),
        ("GET", "/health/live", None, 200),
        ("HEAD", "/health/live", None, 200),
    ],
)
def test_each_reply_has_one_id_that_of_the_caller_if_it_has_one(
    faulty_port: int, method: str, path: str, body: str | None, status: int
) -> None:
    given = ask(faulty_port, method, path, body, {"X-Request-Id": ID})
    # The body is too long before the headers are done, so that the request has no id yet.
    assert given[0] == status
    assert given[1] == [ID] or (status == 413 and len(given[1]) == 1)
    for headers in ({}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 129}, {"X-Request-Id": "ü"}):
        made = ask(faulty_port, method, path, body, headers)
        assert (made[0], len(made[1])) == (status, int(status >= 400))
        assert all(len(name) == 16 and int(name, 16) >= 0 for name in made[1])


def test_an_id_belongs_to_its_request_alone(faulty_port: int) -> None:
    body = b'{"rows": 7}'
    lines = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n%b"
    sent = b"".join(
        lines % (len(body), b"X-Request-Id: %b\r\n" % name if name else b"", body) for name in (b"one", b"", b"three")
    )
    with socket.create_connection(("127.0.0.1", faulty_port), timeout=20) as connection:
        connection.sendall(
            sent.replace(
                b"Host: x\r\nContent-Length: 11\r\nX-Request-Id: three",
                b"Host: x\r\nConnection: close\r\nContent-Length: 11\r\nX-Request-Id: three",
            )
        )
        text = b""
        while part := connection.recv(65_536):
            text += part
    ids = [line.split(b": ")[1] for line in text.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert (ids[0], len(ids[1]), ids[2]) == (b"one", 16, b"three")


def test_lines_of_a_request_have_its_id(
    faulty_port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    monkeypatch.setenv(LEVEL_VARIABLE, "debug")
    for method, path, body in (("POST", "/predict", '{"rows": [{}]}'), ("GET", "/models/m", None)):
        ask(faulty_port, method, path, body, {"X-Request-Id": ID})
        line = next(line for line in logged(capsys) if line["event"] == "request_failed")
        assert (line["request_id"], line["path"]) == (ID, path)
        assert "AttributeError" in line["exception"]
    _, (made,), text = ask(faulty_port, "POST", "/predict", '{"rows": 7}', {})
    (line,) = logged(capsys)
    assert (line["event"], line["level"], line["request_id"], line["status"]) == ("request_refused", "debug", made, 400)
    assert line["error"] == json.loads(text)["error"]["message"]
    ask(faulty_port, "GET", "/nowhere?key=sk_web_0123456789abcdef", None, {"X-Request-Id": ID})
    assert "0123456789" not in json.dumps(logged(capsys))


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]
