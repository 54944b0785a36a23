"""Events over HTTP: in the stream when the server says so, whatever form they came in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from skewless.client import Client
from skewless.contract.errors import RequestError, StoreError
from skewless.infra.platform.storage.database import Database
from skewless.serving.events import EventForwarder
from skewless.serving.http.event_routes import parse_events, parse_push
from tests.integration.serving.conftest import EVENT_BYTES, EventRoutes, serving
from tests.servers.node import Node
from tests.worlds.edits import edit
from tests.worlds.windowed_feast import WindowedFeastProject, columns, landing, open_windowed, some

LINES = "application/x-ndjson; charset=utf-8"


@pytest.fixture(scope="module")
def refusing_routes(tmp_path_factory: pytest.TempPathFactory, valkey: Node) -> Iterator[EventRoutes]:
    """The routes over a project to which no test sends an event that is taken."""
    windowed = open_windowed(tmp_path_factory.mktemp("refusing") / "repo", valkey.url)
    windowed.build()
    with serving(windowed, windowed.project.redis_url) as event_routes:
        yield event_routes
    windowed.close()


def seen(windowed: WindowedFeastProject) -> tuple[int, int]:
    """Return how many events were accepted and how many refused."""
    return windowed.worker.counts.accepted, windowed.worker.counts.rejected


@pytest.mark.parametrize("form", ["one", "list", "lines", "push"])
def test_events_come_to_the_log(windowed: WindowedFeastProject, event_routes: EventRoutes, form: str) -> None:
    rows = some(1 if form == "one" else 5, windowed.now_us())
    pushed = {"push_source_name": "landings", "df": columns(rows), "to": "online_and_offline"}
    path, body, kind = {
        "one": ("/events/landings", json.dumps(rows[0]), "application/json"),
        "list": ("/events/landings", json.dumps({"events": rows}), "application/json"),
        "lines": ("/events/landings", "\n".join(["", *map(json.dumps, rows), ""]), LINES),
        "push": ("/push", json.dumps(pushed), "application/json"),
    }[form]
    status, _, text = event_routes.post(path, body.encode(), kind)
    assert (status, json.loads(text)) == (
        202,
        {"accepted_for": len(rows), "source": "landings", "log": "best_effort"},
    )
    windowed.work(len(rows))
    assert seen(windowed) == (len(rows), 0)
    log = windowed.project.views.log_partitions(windowed.project.applied.plan.windows[0])
    kept = windowed.project.connection.sql("SELECT landing_id FROM read_parquet(?)", params=[log[0].files]).fetchall()
    assert sorted(kept) == sorted((row["landing_id"],) for row in rows)


def test_the_client_sends_events(windowed: WindowedFeastProject, event_routes: EventRoutes) -> None:
    client = Client(event_routes.url)
    try:
        assert client.send_events("landings", some(5, windowed.now_us())) == 5
        with pytest.raises(RequestError, match=r"event source: is unknown .got 'take offs'.*use one of: landings"):
            client.send_events("take offs", some(1, windowed.now_us()))
    finally:
        client.close()
    windowed.work(5)
    assert seen(windowed) == (5, 0)


def test_what_does_not_fit_is_taken_and_judged_by_the_worker(
    windowed: WindowedFeastProject, event_routes: EventRoutes
) -> None:
    now = windowed.now_us()
    rows = [landing(1, "AA", 1, now), landing(2, "AA", 1, now, arr_delay="much"), {"nothing": 1}]
    assert event_routes.post("/events/landings", json.dumps({"events": rows}).encode())[0] == 202
    assert event_routes.post("/events/landings", json.dumps({"memo": "x" * EVENT_BYTES}).encode())[0] == 202
    windowed.work(4)
    assert seen(windowed)[0] == 1


def test_many_clients_at_once(windowed: WindowedFeastProject, event_routes: EventRoutes) -> None:
    rows = some(60, windowed.now_us())
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda row: event_routes.post("/events/landings", json.dumps(row).encode())[0], rows))
    assert replies == [202] * 60
    windowed.work(60)
    assert seen(windowed) == (60, 0)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/events/landings", "", 400, "is not JSON"),
        ("/events/landings", "[1]", 400, "is not a JSON object"),
        ("/events/landings", '{"events": []}', 400, "has no event"),
        ("/events/landings", '{"events": [{}, 7]}', 400, "event 1: is not a JSON object"),
        ("/events/landings", '{"arr_delay": NaN}', 400, "is not JSON"),
        ("/events/landings?log=always", "{}", 400, "parameter 'log': is unknown (got 'always')"),
        ("/push?log=", "{}", 400, "parameter 'log': is unknown (got '')"),
        ("/events/nothing", "{}", 404, "event source: is unknown"),
        ("/push", "{}", 400, "request field 'push_source_name': is not a string"),
        ("/push", '{"push_source_name": "nothing", "df": {"a": [1]}}', 404, "event source: is unknown"),
        ("/push", '{"push_source_name": "landings", "df": {"a": [1], "b": []}}', 400, "different lengths"),
        ("/push", '{"push_source_name": "landings", "df": [1]}', 400, "is not an object with columns"),
        ("/push", '{"push_source_name": "landings", "df": {}}', 400, "has no event"),
        ("/push", '{"push_source_name": "landings", "df": {"a": [1]}, "to": "moon"}', 400, "got 'moon'"),
        ("/push", '{"push_source_name": "landings", "rows": []}', 400, "got 'rows'"),
        ("/events/landings", '{"memo": "' + "x" * 32 * EVENT_BYTES + '"}', 413, "64000 bytes. Fix: send fewer events"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    refusing_routes: EventRoutes, path: str, body: str, status: int, said: str
) -> None:
    found, _, text = refusing_routes.post(path, body.encode())
    assert (found, said in json.loads(text)["error"]["message"]) == (status, True), text


def test_a_line_that_is_wrong_is_named(windowed: WindowedFeastProject, event_routes: EventRoutes) -> None:
    status, _, text = event_routes.post("/events/landings", b'{"a": 1}\n\n{"a": \n', LINES)
    assert (status, json.loads(text)["error"]["thing"]) == (400, "line 3")
    assert windowed.worker.counts.read == 0


def test_a_stream_that_is_away_is_said_so(windowed: WindowedFeastProject) -> None:
    with serving(windowed, "redis://127.0.0.1:1/0") as event_routes:
        for _ in range(2):
            status, headers, text = event_routes.post("/events/landings", b'{"a": 1}')
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(text)["error"]["kind"] == "store"
        client = Client(event_routes.url)
        with pytest.raises(StoreError, match=r"Redis at redis://127\.0\.0\.1:1"):
            client.send_events("landings", [{"a": 1}])
        client.close()


def test_sources_are_those_of_the_applied_plan_also_while_the_database_is_down(
    windowed: WindowedFeastProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = windowed.project
    events = EventForwarder(project.state, project.redis_url, project.store, project.settings)
    assert events.source("landings").name == "landings"
    edit(windowed.repo, 'name="landings"', 'name="arrivals"')
    project.apply()
    events.refresh()
    assert events.source("arrivals").name == "arrivals"
    with pytest.raises(RequestError, match=r"event source: is unknown .got 'landings'.*use one of: arrivals"):
        events.source("landings")

    def fail(*_: object) -> None:
        raise StoreError("database", "is down", fix="start it")

    monkeypatch.setattr(Database, "query", fail)
    with capture_logs() as logs:
        for _ in range(3):
            events.refresh()
    assert [log["event"] for log in logs] == ["plan_not_read", "event_sources_not_read"]
    assert events.source("arrivals").name == "arrivals"
    with pytest.raises(StoreError, match="database: is down"):
        events.source("landings")


def test_an_object_is_sent_as_it_came() -> None:
    body = b'{ "x": 1.50, "events": [1], "n": 9007199254740993 }'
    assert parse_events(body, "application/json") == [body]
    assert parse_push(b'{"push_source_name": "s", "df": {"n": [9007199254740993]}}')[1] == [b'{"n":9007199254740993}']
