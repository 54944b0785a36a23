"""Bad input of issue 2, as far as it reaches a prediction request; and what good input becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.request import ParsedRows, parse_rows
from tests.worlds.plans import make_plan, make_view

FIELDS = {
    "amount": DType.FLOAT64,
    "small": DType.FLOAT32,
    "count": DType.INT32,
    "big": DType.INT64,
    "flag": DType.BOOL,
    "word": DType.STRING,
    "raw": DType.BYTES,
    "at": DType.TIMESTAMP,
}
PLAN = make_plan(
    ["v.x"],
    views=[make_view(), make_view("w", keys={"id": DType.INT64, "shop": DType.STRING})],
    request=FIELDS,
)
GOOD: Mapping[str, Any] = {
    "id": 7,
    "shop": "a",
    "amount": 1.5,
    "small": 0.1,
    "count": 3,
    "big": "9007199254740993",
    "flag": True,
    "word": "Zürich",
    "raw": "é",
    "at": "1970-01-01T02:00:00+01:00",
}


def parse_one(**changes: object) -> ParsedRows:
    return parse_rows(PLAN, [{**GOOD, **changes}], 10)


def test_good_rows_become_keys_and_columns() -> None:
    ask = parse_rows(PLAN, [dict(GOOD), {**GOOD, "id": "8", "shop": None, "amount": None, "at": -1}], 10)
    assert ask.keys == {"id": [7, 8], "shop": ["a", None]}
    assert ask.fields["amount"].tobytes() == np.array([1.5, np.nan]).tobytes()
    assert ask.fields["small"].tolist() == [float(np.float32(0.1))] * 2
    assert ask.fields["big"].tolist() == [2**53 + 1] * 2
    assert ask.fields["at"].tolist() == [3_600_000_000, -1]
    assert ask.fields["word"].tolist() == ["Zürich"] * 2
    assert ask.fields["raw"].tolist() == ["é".encode()] * 2
    kinds = {name: column.dtype for name, column in ask.fields.items()}
    assert {kinds["amount"], kinds["small"]} == {np.dtype(np.float64)}
    assert {kinds["count"], kinds["big"], kinds["at"]} == {np.dtype(np.int64)}
    assert (kinds["flag"], kinds["word"], kinds["raw"]) == (np.dtype(np.bool_), np.dtype(object), np.dtype(object))


def test_an_unknown_entity_is_no_bad_input() -> None:
    assert parse_one(id=2**63 - 1, shop="nobody").keys == {"id": [2**63 - 1], "shop": ["nobody"]}


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_field_is_named(name: str) -> None:
    row = {key: value for key, value in GOOD.items() if key != name}
    is_nullable = name in {"id", "shop", "amount", "small", "word", "raw"}
    null = "null means unknown" if is_nullable else "it must not be null"
    with pytest.raises(RequestError, match=f"row 1: has no field '{name}'. Fix: send it; {null}"):
        parse_rows(PLAN, [dict(GOOD), row], 10)


def test_an_unknown_field_is_named_beside_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"row 0: has an unknown field .got 'amuont'.*amount, at, big"):
        parse_one(amuont=1)


def test_no_row_is_refused() -> None:
    with pytest.raises(RequestError, match="field 'rows': is empty"):
        parse_rows(PLAN, [], 10)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(RequestError, match=r"has more than 2 rows .got 3."):
        parse_rows(PLAN, [dict(GOOD)] * 3, 2)


@pytest.mark.parametrize("row", [None, 1, "a", [], [["id", 7]]])
def test_a_row_that_is_no_object_is_refused(row: object) -> None:
    with pytest.raises(RequestError, match="row 1: is not an object"):
        parse_rows(PLAN, [dict(GOOD), row], 10)


WRONG: Mapping[str, Sequence[object]] = {
    "id": (1.0, True, "1.0", "", 2**63, [1]),
    "shop": (1, 1.5, False, ["a"], "\ud800"),
    "amount": ("1.5", True, [], float("nan"), float("inf"), 10**400, {}),
    "small": ("0.1", 1e39, -1e39, 2.0**128 - 2.0**103, float("-inf")),
    "count": (1.0, True, "x", 2**31, -(2**31) - 1, None, "9" * 5_000, "\u00b2"),
    "big": (1.5, False, 2**63, "1e3", None),
    "flag": (1, 0, "true", None),
    "word": (1, True, ["a"], "\udfff"),
    "raw": (1, b"x", "\ud800"),
    "at": (1.5, True, None, 2**63),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_of_another_type_or_out_of_range_is_named_with_row_and_field(name: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"row 1 (key|field) '{name}': ") as caught:
        parse_rows(PLAN, [dict(GOOD), {**GOOD, name: value}], 10)
    assert json.dumps(caught.value.as_dict())
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("2024-01-01T00:00:00", "add the zone"),
        ("2024-01-01", "add the zone"),
        ("yesterday", "ISO 8601"),
        ("2024-13-01T00:00:00Z", "ISO 8601"),
        ("", "ISO 8601"),
    ],
)
def test_1_1_a_time_without_zone_or_sense_is_refused(text: str, fix: str) -> None:
    with pytest.raises(RequestError, match=f"row 0 field 'at': is not a valid timestamp.*{fix}"):
        parse_one(at=text)


@pytest.mark.parametrize(
    ("value", "us"),
    [
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2024-02-29T12:00:00+05:30", 1_709_188_200_000_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
        (-(2**63), -(2**63)),
    ],
)
def test_1_1_times_are_microseconds_however_they_are_sent(value: object, us: int) -> None:
    assert parse_one(at=value).fields["at"].tolist() == [us]


@pytest.mark.parametrize("name", ["amount", "small", "word", "raw"])
def test_floats_and_text_may_be_null(name: str) -> None:
    column = parse_one(**{name: None}).fields[name]
    assert column.tolist() == [None] if column.dtype == object else np.isnan(column[0])


@pytest.mark.parametrize("name", ["count", "big", "flag", "at"])
def test_a_null_field_of_another_type_is_called_null(name: str) -> None:
    fix = f"send a value: a {FIELDS[name]} has no null"
    with pytest.raises(RequestError, match=f"^row 0 field '{name}': is null. Fix: {fix}$"):
        parse_one(**{name: None})


def test_float32_fields_are_rounded_once() -> None:
    largest = float(np.finfo(np.float32).max)
    assert parse_one(small=largest).fields["small"].tolist() == [largest]
    assert parse_one(small=2.0**128 - 2.0**103 - 2.0**75).fields["small"].tolist() == [largest]
    assert np.signbit(parse_one(small=-0.0).fields["small"][0])
