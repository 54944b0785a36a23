"""The application is reached by who may, and by nobody else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.serving.access.gate import KeyAccess, OpenAccess
from skewless.serving.http.middleware import require_keys


@dataclass
class GateReply:
    """What came back; ``caller`` is who the application was told asks."""

    status: int
    headers: dict[str, str]
    body: Any
    caller: str | None


def ask(middleware: Any, method: str, path: str, key: str | None = None) -> GateReply:  # noqa: ANN401 - an ASGI application
    headers = [] if key is None else [(b"x-api-key", key.encode())]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body is not read")

    async def send(message: Any) -> None:  # noqa: ANN401 - a message
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers, "state": {}}
    asyncio.run(middleware(scope, receive, send))
    start, body = sent
    caller = scope["state"].get("caller")  # type: ignore[attr-defined]
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    return GateReply(start["status"], names, json.loads(body["body"]), caller and caller.name)


async def application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001 - ASGI
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b'"reached"'})


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A key for each of some scopes, and one that may ask once."""
    file = KeyStore(ProjectState(tmp_path))
    secrets = {}
    for name, scopes, rate in (("reader", {"predict"}, None), ("boss", {"admin"}, None), ("slow", {"predict"}, 1e-3)):
        secrets[name] = generate_secret(name)
        digest = hash_secret(secrets[name].encode())
        file.add(ApiKey(name=name, digest=digest, scopes=frozenset(scopes), rate=rate, created_us=1))
    return secrets


@pytest.fixture
def guarded(keys: dict[str, str], tmp_path: Path) -> ASGIApp:
    assert keys
    return require_keys(application, KeyAccess(KeyStore(ProjectState(tmp_path)), lambda: 2), local=False)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"])
def test_health_never_needs_a_key(guarded: ASGIApp, path: str) -> None:
    assert ask(guarded, "GET", path).status == 299


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/openapi.json", "/models", "/nowhere"])
def test_everything_else_needs_one(guarded: ASGIApp, keys: dict[str, str], path: str) -> None:
    refused = ask(guarded, "GET", path)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.body["error"]["kind"] == "access"
    reached = ask(guarded, "GET", path, keys["reader"])
    assert (reached.status, reached.caller) == (299, "reader")


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/docs/start.js", "/openapi.json"])
def test_on_loopback_the_pages_need_none_but_the_rest_does(keys: dict[str, str], tmp_path: Path, path: str) -> None:
    assert keys
    local = require_keys(application, KeyAccess(KeyStore(ProjectState(tmp_path)), lambda: 2), local=True)
    assert ask(local, "GET", path).status == 299
    assert ask(local, "GET", "/models").status == 401


def test_what_changes_something_needs_admin(guarded: ASGIApp, keys: dict[str, str]) -> None:
    path = "/v2/repository/models/fraud/load"
    assert ask(guarded, "POST", path, keys["boss"]).caller == "boss"
    refused = ask(guarded, "POST", path, keys["reader"])
    assert (refused.status, refused.headers["content-type"]) == (403, "application/json")
    assert refused.body == {
        "error": "API key 'reader': does not have the scope 'admin'. "
        "Fix: use a key that was created with `skewless keys add NAME --scope admin`"
    }


def test_a_key_for_some_models_opens_them_and_no_page_of_all(tmp_path: Path) -> None:
    file, secret = KeyStore(ProjectState(tmp_path)), generate_secret("some")
    digest, models = hash_secret(secret.encode()), frozenset({"fraud"})
    file.add(ApiKey(name="some", digest=digest, scopes=frozenset({"admin"}), models=models, created_us=1))
    for local in (False, True):
        guarded = require_keys(application, KeyAccess(file, lambda: 2), local=local)
        pages = [ask(guarded, "GET", path, secret).status for path in ("/metrics", "/docs", "/openapi.json")]
        assert pages == [299 if local else 403] * 3
        for path in ("/models/{}", "/v2/models/{}", "/v2/models/{}/versions/1/ready", "/models/{}/later/routes"):
            for method in ("GET", "HEAD"):
                statuses = [ask(guarded, method, path.format(name), secret).status for name in ("fraud", "x", "stats")]
                assert statuses == [299, 403, 403 if path != "/v2/models/{}" else 299]
        assert ask(guarded, "POST", "/models/x/rollback", secret).status == 403
        assert ask(guarded, "POST", "/models/refresh", secret).status == 299


def test_requests_that_need_admin_are_logged_with_their_caller(guarded: ASGIApp, keys: dict[str, str]) -> None:
    with capture_logs() as logs:
        for method, path in (("POST", "/models/refresh"), ("GET", "/models"), ("PUT", "/x")):
            ask(guarded, method, path, keys["boss"])
        ask(guarded, "POST", "/models/refresh", keys["reader"])
    lines = [(line["event"], line["caller"], line["method"], line["path"]) for line in logs]
    assert lines == [
        ("admin_request", "API key 'boss'", "POST", "/models/refresh"),
        ("admin_request", "API key 'boss'", "PUT", "/x"),
    ]


def test_who_asks_too_often_gets_429(guarded: ASGIApp, keys: dict[str, str]) -> None:
    assert ask(guarded, "GET", "/models", keys["slow"]).status == 299
    refused = ask(guarded, "GET", "/models", keys["slow"])
    assert (refused.status, refused.headers["retry-after"], refused.body["error"]["kind"]) == (429, "1000", "rate")
    assert int(refused.headers["content-length"]) > 0


def test_predictions_reach_their_handlers_which_ask_themselves(guarded: ASGIApp) -> None:
    reached = [ask(guarded, "POST", path) for path in ("/predict", "/v2/models/fraud/infer")]
    assert [(reply.status, reply.caller) for reply in reached] == [(299, None)] * 2


def test_where_nobody_needs_a_key_everything_is_reached() -> None:
    middleware = require_keys(application, OpenAccess(), local=True)
    assert ask(middleware, "POST", "/v2/repository/models/fraud/load").caller == "anyone"
    assert ask(middleware, "GET", "/metrics").status == 299
