"""Rows of feedback: what they mean, and what is wrong with one by its place, field and value."""

from __future__ import annotations

from typing import Any

import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plan import FeaturePlan
from tests.worlds.plans import make_plan, make_view

NOW = 1_700_000_000_000_000
PLAN = make_plan(
    ["v.x"], views=[make_view()], request={"amount": DType.FLOAT64, "sure": DType.BOOL, "at": DType.TIMESTAMP}
)
GOOD = {"prediction_id": "p", "label": 1}


def plan_of(model: str) -> FeaturePlan:
    if model != "m":
        raise RequestError("field 'model'", "is not a served model", value=model, fix="use one of: m")
    return PLAN


def parsed(*rows: object) -> list[Outcome]:
    return parse_feedback(rows, plan_of, NOW, 3)


def by_entity(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"model": "m", "keys": {"id": 7}, "event_time": NOW, "label": 0} | changes


def test_a_prediction_is_named_by_its_id() -> None:
    said = {"prediction_id": "p", "label": True, "value": -2, "known_at": "1970-01-01T00:00:01+01:00"}
    (found,) = parsed(said)
    assert found == Outcome(prediction_id="p", label=1.0, value=-2.0, known_at=-3_599_000_000)
    assert (found.by, found.kind) == ("id", "label")


def test_what_is_not_said_is_null_and_now() -> None:
    found = parsed({"prediction_id": "p", "label": None}, {"prediction_id": "p", "label": None, "value": 3})
    assert [(one.kind, one.label, one.known_at) for one in found] == [("retraction", None, NOW), ("value", None, NOW)]


def test_keys_are_the_same_however_they_are_written() -> None:
    rows = [by_entity(keys={"id": key, "amount": 2, "sure": True, "at": at}) for key, at in ((7, 1), ("7", 1))]
    (first, second) = parsed(*rows)
    assert first == second
    assert first.keys == (("amount", "2.0"), ("at", "1"), ("id", "7"), ("sure", "true"))
    (later,) = parsed(by_entity(keys={"at": "1970-01-01T00:00:00.000001Z", "id": None}))
    assert later.keys == (("at", "1"), ("id", None))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (7, "row: is not an object (got 7)"),
        ({"label": 1}, "row: has no field 'event_time'"),
        ({"prediction_id": "p"}, "row: has no field 'label'"),
        (GOOD | {"lable": 1}, "row: has an unknown field (got 'lable')"),
        (GOOD | {"model": "n"}, "field 'model': is not a served model (got 'n')"),
        (GOOD | {"model": 7}, "field 'model': is not a string (got 7)"),
        (GOOD | {"keys": {"id": 7}}, "row: has an unknown field (got 'keys')"),
        (GOOD | {"prediction_id": 7}, "field 'prediction_id': is not a string (got 7)"),
        (GOOD | {"label": "yes"}, "field 'label': is not a number (got 'yes')"),
        (GOOD | {"value": 10**400}, "field 'value': is not finite"),
        (GOOD | {"known_at": "2025-01-31"}, "field 'known_at': is not a valid timestamp (got '2025-01-31')"),
        (GOOD | {"known_at": NOW + 61_000_000}, "field 'known_at': is in the future"),
        (by_entity(event_time=True), "field 'event_time': is not a valid timestamp (got True)"),
        (by_entity(model="n"), "field 'model': is not a served model (got 'n')"),
        (by_entity(keys=[7]), "field 'keys': is not an object (got [7])"),
        (by_entity(keys={}), "field 'keys': has no key 'id'"),
        (by_entity(keys={"id": 7, "x": 1}), "field 'keys': has an unknown name (got 'x')"),
        (by_entity(keys={"id": 1.5}), "key 'id': is not an integer (got 1.5)"),
        (by_entity(keys={"id": 1, "amount": "much"}), "field 'amount': is not a valid float64 (got 'much')"),
    ],
)
def test_what_is_wrong_is_named(row: object, said: str) -> None:
    with pytest.raises(RequestError) as raised:
        parsed(GOOD, row)
    assert said in str(raised.value)
    assert str(raised.value).startswith("feedback 1 ")
    assert raised.value.fix


def test_no_rows_and_too_many_are_refused() -> None:
    with pytest.raises(RequestError, match="is empty"):
        parsed()
    with pytest.raises(RequestError, match="more than 3 rows"):
        parsed(*[GOOD] * 4)
