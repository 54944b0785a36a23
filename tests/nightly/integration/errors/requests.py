"""Requests to a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.nightly.integration.errors.case import Case, ErrorReply, no_more, post, request, rows
from tests.nightly.integration.errors.scene import GOOD, Scene
from tests.worlds.waiting import eventually

LOGGED = (".skewless/predictions/*.parquet", ".skewless/skewless.db/segments/predictions/*")
_ZONE = "2025-01-31T12:00:00"


def _answered(name: str, change: dict[str, Any], statuses: dict[str, str]) -> Case:
    """Return a case that is no error: what is not known is null, and said so."""

    def check(scene: Scene, said: ErrorReply) -> None:
        (item,) = said.body["predictions"]
        assert {view: read["status"] for view, read in item["views"].items()} == statuses
        absent = [label for label in item["features"] if label.partition("__")[0] in _absent(statuses)]
        assert absent
        assert {item["features"][label] for label in absent} == {None}
        assert said.body["degraded"] is False
        eventually(lambda: scene.logged() > scene.logged_before)

    def count(scene: Scene) -> None:
        scene.logged_before = scene.logged()

    return Case(name=name, ask=post(rows(change)), code=200, arrange=count, after=check, added=LOGGED, shared=True)


def _absent(statuses: dict[str, str]) -> set[str]:
    return {view for view, status in statuses.items() if status == "NOT_FOUND"}


def _refused(name: str, body: object, code: int = 400, **parts: Any) -> Case:  # noqa: ANN401 - fields of Case
    return Case(name=f"request: {name}", ask=post(body), code=code, after=no_more, shared=True, **parts)


def _without(name: str) -> dict[str, Any]:
    return {"model": "fraud", "rows": [{key: value for key, value in GOOD.items() if key != name}]}


def _raw(value: str) -> bytes:
    """Return a request with a text in place of the amount, which need not be JSON."""
    return json.dumps(rows({"amount": "HERE"})).replace('"HERE"', value).encode()


WRONG: dict[str, dict[str, object]] = {
    "card_id": {"1.0": 1.0, "true": True, "text": "seven", "beyond int64": 2**63},
    "shop_id": {"a number": 7, "a list": ["shop-07"]},
    "amount": {"text": "12.5", "true": True, "an object": {"eur": 1}},
    "paid_at": {"without zone": _ZONE, "a word": "yesterday", "half a microsecond": 0.5, "null": None},
    "channel": {"beyond int32": 2**31, "1.5": 1.5, "null": None},
    "visits": {"beyond int64": str(2**63), "text": "many"},
    "tip": {"beyond float32": 1e39, "text": "0.5"},
    "chip": {"1": 1, "text": "true", "null": None},
    "memo": {"a number": 5},
    "proof": {"a number": 5},
}
TYPES = {
    "card_id": "integer",
    "shop_id": "string",
    "amount": "float64",
    "paid_at": "timestamp",
    "channel": "int32",
    "visits": "int64",
    "tip": "float32",
    "chip": "bool",
    "memo": "string",
    "proof": "bytes",
}


def _wrong_types() -> Iterator[Case]:
    for field, values in WRONG.items():
        for what, value in values.items():
            says = (TYPES[field] if value != 2**63 else "does not fit int64", "" if value is None else str(value))
            yield _refused(
                f"{field} is {what}", rows({}, {field: value}), thing=f"row 1 {_kind(field)} {field!r}", says=says
            )


def _kind(field: str) -> str:
    return "key" if field in {"card_id", "shop_id"} else "field"


CASES: tuple[Case, ...] = (
    _answered("request: unknown card", {"card_id": 5}, {"card_days": "NOT_FOUND", "shop_risk": "PRESENT"}),
    _answered(
        "request: unknown card and shop",
        {"card_id": -1, "shop_id": "nowhere"},
        {"card_days": "NOT_FOUND", "shop_risk": "NOT_FOUND"},
    ),
    _answered("request: null key", {"card_id": None}, {"card_days": "NOT_FOUND", "shop_risk": "PRESENT"}),
    _refused("missing key", _without("card_id"), thing="row 0", says=("has no field", "'card_id'"), fix="null"),
    _refused("missing field", _without("amount"), thing="row 0", says=("has no field", "'amount'"), fix="null"),
    _refused("unknown field", rows({"amuont": 1}), thing="row 0", says=("unknown field", "'amuont'"), fix="amount"),
    _refused("unknown option", rows() | {"rowz": 1}, thing="request body", says=("unknown field", "'rowz'")),
    _refused("empty batch", {"model": "fraud", "rows": []}, thing="field 'rows'", says=("is empty",), fix="at least"),
    _refused("no rows", {"model": "fraud"}, thing="request body", says=("has no list 'rows'",), fix='{"rows"'),
    _refused("rows is an object", {"model": "fraud", "rows": {}}, thing="request body", says=("no list 'rows'",)),
    _refused("row is a number", {"model": "fraud", "rows": [7]}, thing="row 0", says=("not an object", "7")),
    _refused("features is text", rows() | {"features": "yes"}, thing="field 'features'", says=("'yes'",), fix="true"),
    _refused("too many rows", rows(*({},) * 51), thing="field 'rows'", says=("more than 50 rows", "51"), fix="several"),
    _refused("not JSON", b"card_id=7", thing="request body", says=("is not JSON",), fix="valid JSON"),
    _refused("empty body", b"", thing="request body", says=("is not JSON",), fix="valid JSON"),
    _refused("not UTF-8", b'{"rows": ["\xff"]}', thing="request body", says=("is not JSON",), fix="valid JSON"),
    _refused("a list", [GOOD], thing="request body", says=("has no list 'rows'",)),
    _refused("bare NaN", _raw("NaN"), thing="request body", says=("is not JSON",), fix="null for NaN and Infinity"),
    _refused("bare Infinity", _raw("-Infinity"), thing="request body", says=("is not JSON",), fix="with null for NaN"),
    _refused("NaN as text", rows({"amount": "NaN"}), thing="row 0 field 'amount'", says=("'NaN'",), fix="null"),
    _refused("beyond float64", _raw("1" + "0" * 400), says=("request",), thing="", fix="send"),
    _refused(
        "unknown model", rows(model="nosuch"), 404, thing="field 'model'", says=("'nosuch'",), fix="fraud, strict"
    ),
    _refused(
        "no model of two",
        {"rows": [GOOD]},
        thing="request body",
        says=("no field 'model'", "several are served"),
        fix="use one of: fraud, strict",
    ),
    _refused(
        "model is a list",
        rows() | {"model": ["fraud"]},
        thing="field 'model'",
        says=("['fraud']",),
        fix="the name of a model",
    ),
    *_wrong_types(),
    Case(
        name="request: description of an unknown model",
        ask=request("GET", "/models/nosuch"),
        code=404,
        thing="field 'model'",
        says=("'nosuch'",),
        fix="use one of: fraud, strict",
        shared=True,
    ),
)
