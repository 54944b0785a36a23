"""The same requests through the fast lane and through the application: the same replies, byte by byte."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest

from skewless.infra.models.runtimes.port import find_leaves
from tests.integration.serving.core.conftest import SECOND
from tests.integration.serving.core.doors import Door, DoorReply, Doors, opened_doors
from tests.worlds.trained import MODEL, NOW, Sandbox, ask

_ID = re.compile(rb"[0-9a-f]{11}-[0-9a-f]{8}-[0-9a-f]+")


@pytest.fixture(scope="module")
def doors(shared: Sandbox) -> Iterator[Doors]:
    with opened_doors(shared) as doors:
        yield doors


def body(n: int = 1, **fields: Any) -> bytes:  # noqa: ANN401 - of a request
    return json.dumps({"model": MODEL, "rows": ask(n), **fields}).encode()


def without_ids(reply: DoorReply) -> tuple[int, dict[str, str], bytes]:
    headers = dict(reply.headers)
    assert int(headers.pop("content-length")) == len(reply.body)
    return reply.status, headers, _ID.sub(b"ID", reply.body)


DAY_US = 86_400_000_000
PREDICTIONS = {
    "one": body(),
    "many": body(50),
    "a version": body(version="1"),
    "features": body(3, features=True),
    "contributions": body(3, contributions=True),
    "leaves": body(3, leaves=True),
    "as_of": body(2, as_of=NOW - 40 * DAY_US),
    "as_of in words": body(2, as_of="2026-01-10T12:00:00+01:00"),
    "an age": body(2, max_feature_age_s=1, features=True),
    "a deadline": body(2, timeout_us=20_000_000),
    "all": body(3, features=True, contributions=True, as_of=NOW - DAY_US, max_feature_age_s=9.5, timeout_us=20_000_000),
    "nulls": json.dumps({"model": MODEL, "rows": [{**ask(1)[0], "card_id": None, "amount": None}]}).encode(),
    "required log": json.dumps({"model": SECOND, "rows": ask(2)}).encode(),
}
REFUSALS = {
    "no JSON": (b"{", 400),
    "nothing": (b"", 400),
    "no object": (b"[]", 400),
    "no rows": (b"{}", 400),
    "rows of a kind": (b'{"rows": {}}', 400),
    "no row": (body(0), 400),
    "a row that is none": (json.dumps({"model": MODEL, "rows": [7]}).encode(), 400),
    "a field too much": (body(other=1), 400),
    "a wrong type": (body(features="yes"), 400),
    "a wrong row": (json.dumps({"model": MODEL, "rows": [{**ask(1)[0], "amount": "much"}]}).encode(), 400),
    "a wrong time": (body(as_of="yesterday"), 400),
    "a time ahead": (body(as_of=2 * NOW), 400),
    "a time before all dates": (body(as_of=-(2**62)), 400),
    "a wrong age": (body(max_feature_age_s=0), 400),
    "a wrong deadline": (body(timeout_us=-1), 400),
    "no such model": (body(model="none"), 404),
    "no model named of two": (json.dumps({"rows": ask(1)}).encode(), 400),
    "no such version": (body(version="9"), 404),
    "too many rows": (json.dumps({"model": MODEL, "rows": [{}] * 10_001}).encode(), 400),
    "rows too old": (json.dumps({"model": SECOND, "rows": ask(1), "max_feature_age_s": 1e-6}).encode(), 503),
}


GET_ROUTES = ["/health/live", "/health/ready", "/metrics", "/models", "/openapi.json"]


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_is_answered_as_get_without_its_body(doors: Doors, path: str) -> None:
    for door in (doors.fast, doors.slow):
        whole, head = door.ask("GET", path), door.ask("HEAD", path)
        assert (head.status, head.body) == (whole.status, b"")
        assert head.headers.keys() == whole.headers.keys()
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert door.ask("HEAD", path, key="sk_web_unknown").status in {401, whole.status}


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/predict", 405)])
def test_head_of_what_get_has_not_is_refused_as_get(doors: Doors, path: str, status: int) -> None:
    for door in (doors.fast, doors.slow):
        reply = door.ask("HEAD", path)
        assert (reply.status, reply.body, door.ask("GET", path).status) == (status, b"", status)


@pytest.mark.parametrize("door", ["fast", "slow"])
def test_a_key_is_masked_wherever_a_client_put_it(doors: Doors, door: str) -> None:
    way, key = getattr(doors, door), doors.keys["predict"]
    replies = [
        way.ask("GET", f"/{key}"),
        way.ask("POST", "/predict", body(model=key)),
        way.ask("POST", "/predict", json.dumps({"rows": ask(1), key: 1}).encode()),
        way.ask("POST", "/predict", body(as_of=f"Bearer {key}")),
        way.ask("GET", f"/models/{key}/versions"),
    ]
    for reply in replies:
        assert 400 <= reply.status < 500, reply.body
        assert key.encode()[-40:] not in reply.body, reply.body


def test_routes_of_a_plugin_that_is_missing_name_its_extra(doors: Doors) -> None:
    for method, path in (("POST", f"/v2/models/{MODEL}/infer"), ("GET", "/v2"), ("GET", "/v2/health/ready")):
        for door in (doors.fast, doors.slow):
            reply = door.ask(method, path, b"{}" if method == "POST" else None)
            says = f"route '{method} {path}': not found. Fix: pip install 'skewless[oip]' for the server"
            assert (reply.status, json.loads(reply.body)) == (404, {"error": says})


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_predictions_are_the_same(doors: Doors, kind: str) -> None:
    fast, slow = (door.ask("POST", "/predict", PREDICTIONS[kind]) for door in (doors.fast, doors.slow))
    assert fast.status == 200, fast.body
    assert without_ids(fast) == without_ids(slow)


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusals_are_the_same(doors: Doors, kind: str) -> None:
    sent, status = REFUSALS[kind]
    fast, slow = (door.ask("POST", "/predict", sent) for door in (doors.fast, doors.slow))
    assert without_ids(fast) == without_ids(slow)
    assert (fast.status, fast.headers["content-type"]) == (status, "application/json"), fast.body
    assert {"message", "kind", "thing", "problem", "fix"} <= json.loads(fast.body)["error"].keys()
    assert fast.headers.get("retry-after") == ("1" if status == 503 else None)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused_in_our_shape(doors: Doors, method: str) -> None:
    for door in (doors.fast, doors.slow):
        reply = door.ask(method, "/predict")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert reply.headers["content-type"] == "application/json"
        if method == "HEAD":
            assert reply.body == b""
        else:
            assert "method not allowed" in json.loads(reply.body)["error"]["message"]


@pytest.mark.parametrize(
    ("path", "sent", "key", "status"),
    [
        ("/predict", body(), None, 401),
        ("/predict", body(), "sk-none.nothing", 401),
        ("/predict", body(), "feedback", 403),
        ("/predict", body(), "predict", 200),
        ("/predict", body(as_of=NOW - DAY_US), "predict", 403),
        ("/predict", body(as_of=NOW - DAY_US), "as_of", 403),
        ("/models/refresh", b"", None, 401),
        ("/models/refresh", b"", "predict", 403),
        ("/models/refresh", b"", "admin", 200),
        (f"/models/{MODEL}/rollback", b"", None, 401),
        (f"/models/{MODEL}/rollback", b"", "as_of", 403),
        (f"/models/{MODEL}/rollback", b"", "admin", 409),
        ("/models/none/rollback", b"", "admin", 404),
    ],
)
def test_keys_open_what_their_scopes_say(doors: Doors, path: str, sent: bytes, key: str | None, status: int) -> None:
    for door in (doors.fast, doors.slow):
        reply = door.ask("POST", path, sent, key=key)
        assert reply.status == status, reply.body
        assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


def test_the_models_are_shown(doors: Doors, shared: Sandbox) -> None:
    listed = json.loads(doors.fast.ask("GET", "/models", key="predict").body)
    assert listed["refused"] == {}
    assert sorted((model["model"], model["versions"]) for model in listed["models"]) == [
        (MODEL, ["000001"]),
        (SECOND, ["000001"]),
    ]
    one = json.loads(doors.slow.ask("GET", f"/models/{MODEL}").body)
    assert one in listed["models"]
    assert one["inputs"]["keys"].keys() == {"card_id", "shop_id"}
    assert one["features"] == list(shared.model.assembler.labels)
    assert doors.fast.ask("GET", "/models/none").status == 404


def test_what_is_said_is_what_the_model_gives(doors: Doors, shared: Sandbox) -> None:
    found = json.loads(
        doors.fast.ask("POST", "/predict", body(20, features=True, contributions=True, leaves=True)).body
    )
    labels = list(shared.model.assembler.labels)
    matrix = np.array(
        [[np.nan if (v := item["features"][name]) is None else v for name in labels] for item in found["predictions"]]
    )
    scores = [item["score"] for item in found["predictions"]]
    assert scores == shared.model.runtime.score(matrix).tolist()
    expected = shared.model.runtime.contributions(matrix)
    assert [list(item["contributions"].values()) for item in found["predictions"]] == expected.tolist()
    assert list(found["predictions"][0]["contributions"]) == [*labels, "bias"]
    assert [item["leaves"] for item in found["predictions"]] == find_leaves(shared.model.runtime, matrix).tolist()
    assert found["t_us"] == doors.clock.now_us() // 1_000 * 1_000


def test_many_requests_on_one_connection(doors: Doors) -> None:
    connection = HTTPConnection("127.0.0.1", doors.fast.port, timeout=20)
    plain = [json.loads(doors.fast.ask("POST", "/predict", body(n)).body) for n in range(1, 5)]
    scores = [[item["score"] for item in reply["predictions"]] for reply in plain]
    connection.connect()
    link, names = connection.sock, set()
    for turn in range(200):
        connection.request("POST", "/predict", body(1 + turn % 4), {"X-API-Key": doors.keys["predict"]})
        reply = connection.getresponse()
        predictions = json.loads(reply.read())["predictions"]
        assert [item["score"] for item in predictions] == scores[turn % 4]
        names |= {item["id"] for item in predictions}
    assert connection.sock is link
    assert len(names) == 50 * (1 + 2 + 3 + 4)
    connection.close()


def test_requests_sent_before_any_reply_are_answered_in_order(doors: Doors) -> None:
    """The first goes the fast way, the others wait in the application."""
    door, parts = doors.fast, []
    for n in (3, 1, 4, 2):
        sent = body(n)
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: {door.keys['predict']}\r\ncontent-length: {len(sent)}"
        parts.append(f"{head}\r\n\r\n".encode() + sent)
    assert [len(found["predictions"]) for found in _said(door, b"".join(parts), 4)] == [3, 1, 4, 2]


def _said(door: Door, sent: bytes, n: int) -> list[Any]:
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as link, link.makefile("rb") as file:
        link.sendall(sent)
        found = []
        for _ in range(n):
            length = 0
            while line := file.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append(json.loads(file.read(length)))
        return found
