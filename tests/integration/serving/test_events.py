"""Events over HTTP: in the stream when the server says so, whatever form they came in."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from skewless.client import Client
from skewless.contract.errors import RequestError, StoreError
from skewless.serving.http.event_routes import parse_events, parse_push
from tests.feast.windows.world import World, columns, landing, some
from tests.integration.serving.conftest import EVENT_BYTES, Front, serving

LINES = "application/x-ndjson; charset=utf-8"


def seen(world: World) -> tuple[int, int]:
    """Return how many events were accepted and how many refused."""
    return world.worker.tally.accepted, world.worker.tally.rejected


@pytest.mark.parametrize("form", ["one", "list", "lines", "push"])
def test_events_come_to_the_log(world: World, front: Front, form: str) -> None:
    rows = some(1 if form == "one" else 5, world.now_us())
    pushed = {"push_source_name": "landings", "df": columns(rows), "to": "online_and_offline"}
    path, body, kind = {
        "one": ("/events/landings", json.dumps(rows[0]), "application/json"),
        "list": ("/events/landings", json.dumps({"events": rows}), "application/json"),
        "lines": ("/events/landings", "\n".join(["", *map(json.dumps, rows), ""]), LINES),
        "push": ("/push", json.dumps(pushed), "application/json"),
    }[form]
    status, _, text = front.post(path, body.encode(), kind)
    assert (status, json.loads(text)) == (202, {"accepted_for": len(rows), "source": "landings"})
    world.work(len(rows))
    assert seen(world) == (len(rows), 0)
    log = world.project.views.log_parts(world.project.applied.plan.windows[0])
    kept = world.project.connection.sql("SELECT landing_id FROM read_parquet(?)", params=[log[0].files]).fetchall()
    assert sorted(kept) == sorted((row["landing_id"],) for row in rows)


def test_the_client_sends_events(world: World, front: Front) -> None:
    client = Client(front.url)
    try:
        assert client.send_events("landings", some(5, world.now_us())) == 5
        with pytest.raises(RequestError, match=r"event source: is unknown .got 'take offs'.*use one of: landings"):
            client.send_events("take offs", some(1, world.now_us()))
    finally:
        client.close()
    world.work(5)
    assert seen(world) == (5, 0)


def test_what_does_not_fit_is_taken_and_judged_by_the_worker(world: World, front: Front) -> None:
    now = world.now_us()
    rows = [landing(1, "AA", 1, now), landing(2, "AA", 1, now, arr_delay="much"), {"nothing": 1}]
    assert front.post("/events/landings", json.dumps({"events": rows}).encode())[0] == 202
    assert front.post("/events/landings", json.dumps({"memo": "x" * EVENT_BYTES}).encode())[0] == 202
    world.work(4)
    assert seen(world)[0] == 1


def test_many_clients_at_once(world: World, front: Front) -> None:
    rows = some(60, world.now_us())
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda row: front.post("/events/landings", json.dumps(row).encode())[0], rows))
    assert replies == [202] * 60
    world.work(60)
    assert seen(world) == (60, 0)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/events/landings", "", 400, "is not JSON"),
        ("/events/landings", "[1]", 400, "is not a JSON object"),
        ("/events/landings", '{"events": []}', 400, "holds no event"),
        ("/events/landings", '{"events": [{}, 7]}', 400, "event 1: is not a JSON object"),
        ("/events/landings", '{"arr_delay": NaN}', 400, "is not JSON"),
        ("/events/nothing", "{}", 404, "event source: is unknown"),
        ("/push", "{}", 400, "request field 'push_source_name': is not a text"),
        ("/push", '{"push_source_name": "nothing", "df": {"a": [1]}}', 404, "event source: is unknown"),
        ("/push", '{"push_source_name": "landings", "df": {"a": [1], "b": []}}', 400, "several lengths"),
        ("/push", '{"push_source_name": "landings", "df": [1]}', 400, "is not an object of columns"),
        ("/push", '{"push_source_name": "landings", "df": {}}', 400, "holds no event"),
        ("/push", '{"push_source_name": "landings", "df": {"a": [1]}, "to": "moon"}', 400, "got 'moon'"),
        ("/push", '{"push_source_name": "landings", "rows": []}', 400, "got 'rows'"),
        ("/events/landings", '{"memo": "' + "x" * 32 * EVENT_BYTES + '"}', 413, "64000 bytes. Fix: send fewer events"),
    ],
)
def test_what_cannot_be_taken_is_refused(front: Front, path: str, body: str, status: int, said: str) -> None:
    found, _, text = front.post(path, body.encode())
    assert (found, said in json.loads(text)["error"]["message"]) == (status, True), text


def test_a_line_that_is_wrong_is_named(world: World, front: Front) -> None:
    status, _, text = front.post("/events/landings", b'{"a": 1}\n\n{"a": \n', LINES)
    assert (status, json.loads(text)["error"]["thing"]) == (400, "line 3")
    assert world.worker.tally.read == 0


def test_a_stream_that_is_away_is_said_so(world: World) -> None:
    with serving(world, "redis://127.0.0.1:1/0") as front:
        for _ in range(2):
            status, headers, text = front.post("/events/landings", b'{"a": 1}')
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(text)["error"]["kind"] == "store"
        client = Client(front.url)
        with pytest.raises(StoreError, match=r"Redis at redis://127\.0\.0\.1:1"):
            client.send_events("landings", [{"a": 1}])
        client.close()


def test_sources_are_those_of_the_plan_in_force(world: World, front: Front) -> None:
    assert front.post("/events/landings", b'{"a": 1}')[0] == 202
    path = world.repo / "definitions.py"
    path.write_text(path.read_text().replace('name="landings"', 'name="arrivals"'))
    world.project.apply()
    assert front.post("/events/landings", b'{"a": 1}')[0] == 404
    assert front.post("/events/arrivals", b'{"a": 1}')[0] == 202


def test_an_object_is_sent_as_it_came() -> None:
    body = b'{ "x": 1.50, "events": [1], "n": 9007199254740993 }'
    assert parse_events(body, "application/json") == [body]
    assert parse_push(b'{"push_source_name": "s", "df": {"n": [9007199254740993]}}')[1] == [b'{"n":9007199254740993}']
