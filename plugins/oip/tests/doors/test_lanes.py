"""The protocol through the fast lane and through the application: the same replies, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.serving.core.doors import Doors
from tests.integration.serving.core.test_doors import DAY_US, without_ids
from tests.worlds.trained import MODEL, NOW, ask


def infer(n: int = 2, **fields: Any) -> bytes:  # noqa: ANN401 - of a request
    rows = ask(n)
    kinds = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
    inputs = [
        {"name": name, "datatype": kind, "shape": [n, 1], "data": [row[name] for row in rows]}
        for name, kind in kinds.items()
    ]
    return json.dumps({"id": "mine", "inputs": inputs, **fields}).encode()


INFER = f"/v2/models/{MODEL}/infer"


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        (INFER, infer(), 200),
        (f"/v2/models/{MODEL}/versions/1/infer", infer(1), 200),
        (INFER, infer(outputs=[{"name": "score"}, {"name": "feature_values"}, {"name": "contributions"}]), 200),
        (INFER, infer(parameters={"as_of": NOW - DAY_US}), 200),
        (INFER, b"{", 400),
        (INFER, infer(parameters={"timeout": -1}), 400),
        ("/v2/models/none/infer", infer(), 404),
        (f"/v2/models/{MODEL}/versions/9/infer", infer(), 404),
    ],
)
def test_the_protocol_is_the_same(doors: Doors, path: str, sent: bytes, status: int) -> None:
    fast, slow = (door.ask("POST", path, sent) for door in (doors.fast, doors.slow))
    assert fast.status == status, fast.body
    assert without_ids(fast) == without_ids(slow)


@pytest.mark.parametrize(("path", "status"), [("/v2", 200), ("/v2/models/stats", 200), (INFER, 405)])
def test_head_is_answered_as_get_without_its_body(doors: Doors, path: str, status: int) -> None:
    for door in (doors.fast, doors.slow):
        whole, head = door.ask("GET", path), door.ask("HEAD", path)
        assert (head.status, head.body, whole.status) == (status, b"", status)
        assert head.headers.keys() == whole.headers.keys()


@pytest.mark.parametrize("door", ["fast", "slow"])
def test_a_key_is_masked_wherever_a_client_put_it(doors: Doors, door: str) -> None:
    way, key = getattr(doors, door), doors.keys["predict"]
    replies = [
        way.ask("GET", f"/v2/{key}"),
        way.ask("POST", f"/v2/models/{key}/infer", infer()),
        way.ask("POST", INFER, infer(outputs=[{"name": key}])),
        way.ask("POST", f"/v2/repository/models/{key}/load", b"{}"),
    ]
    for reply in replies:
        assert 400 <= reply.status < 500, reply.body
        assert key.encode()[-40:] not in reply.body, reply.body


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused_in_one_sentence(doors: Doors, method: str) -> None:
    for door in (doors.fast, doors.slow):
        reply = door.ask(method, INFER)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert "method not allowed" in json.loads(reply.body)["error"]


@pytest.mark.parametrize(
    ("sent", "key", "status"),
    [
        (infer(), None, 401),
        (infer(), "admin", 403),
        (infer(parameters={"as_of": NOW - DAY_US}), "predict", 403),
        (infer(), "predict", 200),
    ],
)
def test_keys_open_what_their_scopes_say(doors: Doors, sent: bytes, key: str | None, status: int) -> None:
    for door in (doors.fast, doors.slow):
        reply = door.ask("POST", INFER, sent, key=key)
        assert reply.status == status, reply.body
        assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
