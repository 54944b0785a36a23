"""`feast serve` on our store: every field of every answer as on Feast's own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService, FeatureStore
from feast.feature_server import get_app

from plugins.feast.tests.online.conftest import Make
from plugins.feast.tests.online.test_reads import FULL, KINDS
from tests.worlds.feast_repo import USER
from tests.worlds.feast_twins import NOW, Twin, ago, close_feasts_client, row, schema, users
from tests.worlds.waiting import until

# Feast's duckdb store calls what DuckDB 2 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
NAMES = ("a_double", "a_text", "an_int64")
READ = "/get-online-features"
REFS = [f"users:{name}" for name in NAMES]
FeatureAnswer = tuple[int, Any]
Ask = Callable[[str, dict[str, Any]], list[FeatureAnswer]]
Open = Callable[[Twin], FeatureStore]


async def post(store: FeatureStore, path: str, body: dict[str, Any]) -> FeatureAnswer:
    """Return the status and the JSON of an answer of Feast's server, asked as its HTTP layer would ask it."""
    app: Any = get_app(store)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    try:
        await app(scope, receive, send)
    except Exception:  # noqa: BLE001 - the outermost layer answers, and raises again for the log
        assert said
    finally:
        await close_feasts_client(store)
    return said[0]["status"], json.loads(b"".join(part.get("body", b"") for part in said[1:]) or b"null")


def applied(twin: Twin, store: FeatureStore) -> FeatureStore:
    """Apply a view and a service."""
    twin.write("users.parquet", [row(1, ago(days=5))], schema(NAMES))
    view = users(twin.repo, names=NAMES)
    store.apply([USER, view, FeatureService(name="some", features=[view[["a_text"]]])])
    return store


@pytest.fixture
def ask(make: Make, opened: Open) -> Ask:
    """Post to both; return both answers, Feast's first."""
    stores = [applied(twin, opened(twin)) for twin in map(make, KINDS)]
    return lambda path, body: [asyncio.run(post(store, path, body)) for store in stores]


def pushed(user: int) -> dict[str, Any]:
    """Return what is posted to push a row."""
    sent = row(user, ago(hours=1), **{name: FULL[name] for name in NAMES})
    columns = {name: [value.isoformat() if hasattr(value, "isoformat") else value] for name, value in sent.items()}
    return {"push_source_name": "users_push", "df": columns, "to": "online"}


@pytest.mark.parametrize(
    "body", [{"features": REFS}, {"feature_service": "some"}, {"features": REFS, "full_feature_names": True}]
)
def test_a_read_answers_as_on_feasts_store(ask: Ask, body: dict[str, Any]) -> None:
    feasts, ours = ask("/push", pushed(1))
    assert ours == feasts == (200, None)
    feasts, ours = ask(READ, {**body, "entities": {"user_id": [1, 1]}})
    assert ours[0] == 200
    assert ours[1].keys() == feasts[1].keys()
    assert by_name(ours[1]) == by_name(feasts[1])


def by_name(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the vectors by feature: Feast's order is chance."""
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


def test_frames_are_written_as_on_feasts_store(ask: Ask) -> None:
    frame = {**pushed(2)["df"], "a_text": ["written"]}
    feasts, ours = ask("/write-to-online-store", {"feature_view_name": "users", "df": frame})
    assert ours == feasts
    feasts, ours = ask(READ, {"features": REFS, "entities": {"user_id": [2]}})
    assert by_name(ours[1]) == by_name(feasts[1])
    assert by_name(ours[1])["a_text"]["values"] == ["written"]


@pytest.mark.parametrize(
    "body",
    [
        {"features": ["users:none_such"], "entities": {"user_id": [1]}},
        {"features": ["no_view:a_double"], "entities": {"user_id": [1]}},
        {"feature_service": "none_such", "entities": {"user_id": [1]}},
        {"features": REFS, "entities": {"user_id": [1], "other": [1, 2]}},
    ],
)
def test_a_wrong_request_fails_as_on_feasts_store(ask: Ask, body: dict[str, Any]) -> None:
    feasts, ours = ask(READ, body)
    assert ours == feasts
    assert ours[0] >= 400


def test_materialisation_over_http(ask: Ask) -> None:
    feasts, ours = ask("/materialize", {"start_ts": ago(days=9).isoformat(), "end_ts": NOW.isoformat()})
    assert ours == feasts
    assert ours[0] == 200


def test_an_unknown_entity_is_the_one_difference(ask: Ask) -> None:
    feasts, ours = ask(READ, {"features": REFS[:1], "entities": {"user_id": [99]}})
    assert [by_name(answer[1])["a_double"]["statuses"] for answer in (feasts, ours)] == [["PRESENT"], ["NOT_FOUND"]]
    assert [by_name(answer[1])["a_double"]["values"] for answer in (feasts, ours)] == [[None]] * 2


@contextmanager
def started(repo: Path) -> Iterator[str]:
    """Run `feast serve` for the length of a block; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("feast")), "-c", str(repo), "serve", "-p", port, "--no-access-log"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    with (repo / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=repo, env=kept, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def answers(url: str) -> bool:
    """Say whether somebody listens there."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
            return True
    except OSError:
        return False


@pytest.mark.soak
def test_the_server_itself_answers_what_the_store_answers(make: Make, opened: Open) -> None:
    twin = make("skewless")
    store = applied(twin, opened(twin))
    bodies = [pushed(1), {"features": REFS, "entities": {"user_id": [1, 99]}}]
    here = [asyncio.run(post(store, path, body)) for path, body in zip(("/push", READ), bodies, strict=True)]
    with started(twin.repo) as url:
        for path, body, expected in zip(("/push", READ), bodies, here, strict=True):
            sent = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - our own server
            with urllib.request.urlopen(sent, timeout=30) as answer:  # noqa: S310 - our own server
                assert (answer.status, json.loads(answer.read() or b"null")) == expected
