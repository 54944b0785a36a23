"""The page ``/docs``: it needs no other host, and each of its assets is there."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI

from skewless.serving.app import ServingContext, create_app
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor

_ADDRESS = re.compile(r"""(?:src|href|url)\s*[=:]\s*["']?([^"'\s>]+)""")
_OTHER_HOST = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


@dataclass
class PageReply:
    """A reply of the application."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def app() -> FastAPI:
    models, predictor = cast("ModelTable", SimpleNamespace(all=list)), cast("Predictor", None)
    events, feedback = cast("EventForwarder", None), cast("Feedback", None)
    serving = ServingContext(
        models=models, predictor=predictor, metrics=Metrics(), events=events, feedback=feedback, reload_seconds=1.0
    )
    return create_app(serving)


def get(app: FastAPI, path: str, method: str = "GET") -> PageReply:
    """Return the reply of an application to a request without a body."""
    messages: list[Any] = []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not requests:
            await asyncio.Event().wait()  # the client stays connected
        return requests.pop()

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        messages.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": [], "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 1), "root_path": ""}
    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return PageReply(messages[0]["status"], headers, b"".join(message.get("body", b"") for message in messages[1:]))


def assets(page: PageReply) -> list[str]:
    """Return the addresses that a page loads."""
    return _ADDRESS.findall(page.body.decode())


def test_the_page_and_its_assets_come_from_this_server(app: FastAPI) -> None:
    page = get(app, "/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    addresses = assets(page)
    assert len(addresses) == 4
    assert not [address for address in addresses if _OTHER_HOST.match(address)]
    replies = {address: get(app, f"/{address}") for address in addresses}
    assert {address: reply.status for address, reply in replies.items()} == dict.fromkeys(addresses, 200)
    assert all(reply.body for reply in replies.values())
    assert get(app, f"/{assets(replies['docs/start.js'])[0]}").status == 200, "the OpenAPI document"
    styles = re.findall(r"url\(\s*[\"']?([^\"')]{0,40})", replies["docs/swagger-ui.css"].body.decode())
    assert [style for style in styles if not style.startswith("data:")] == []


def test_the_browser_may_load_nothing_else(app: FastAPI) -> None:
    page = get(app, "/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split(" ")} == {
        "'none'",
        "'self'",
        "'unsafe-inline'",
        "data:",
    }
    assert policy["script-src"] == "'self'"
    for address in ("docs", *assets(page)):
        reply = get(app, f"/{address}")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert "<script>" not in page.body.decode()
    assert "validatorUrl: null" in get(app, "/docs/start.js").body.decode()


def test_the_page_is_not_part_of_the_document(app: FastAPI) -> None:
    assert not [path for path in app.openapi()["paths"] if path.startswith("/docs")]
    assert [get(app, path).status for path in ("/redoc", "/docs/oauth2-redirect", "/docs/other.js")] == [404] * 3
    assert get(app, "/docs", "HEAD").status == 200


def test_without_the_package_the_error_says_so(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.serving.http.openapi.find_spec", lambda _: None)
    reply = get(app, "/docs")
    assert (reply.status, b"pip install fastapi-swagger" in reply.body) == (500, True)
    assert importlib.util.find_spec("fastapi_swagger") is not None
