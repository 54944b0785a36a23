from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import great_expectations.expectations as gxe
import pytest
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.row_conditions import Column

from skewless.contract.bounds import Bound, Bounds
from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split
from skewless.validation.suites import compile_bounds
from tests.worlds.plans import make_plan, make_view

VIEW = make_view("v", features={"x": DType.FLOAT64, "word": DType.STRING, "raw": DType.BYTES, "at": DType.TIMESTAMP})
PLAN = make_plan(
    ["v.x", "v.word", "v.raw", "v.at", "request.amount"],
    views=[VIEW],
    request={"amount": DType.FLOAT64, "note": DType.STRING},
)
SPEC = ModelSpec(
    name="m",
    service="s",
    labels=LabelSource(path="p", event_time="e", known_time="k", label="l", columns={"note": "remark"}),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=1)),
)


def between(column: str, low: float | None, high: float | None, **more: Any) -> Expectation:  # noqa: ANN401
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, **more)


def bounds_of(**suites: Sequence[Expectation]) -> Bounds:
    return compile_bounds(PLAN, SPEC, {name.replace("labels_m", "labels:m"): suite for name, suite in suites.items()})


def test_what_a_suite_says_of_features() -> None:
    suite = [
        between("x", 0, None),
        between("x", -5, 9),
        gxe.ExpectColumnValuesToBeInSet(column="word", value_set=["b", "a"]),
        between("nothing_of_ours", 0, 1),
        gxe.ExpectColumnMeanToBeBetween(column="x", min_value=4, max_value=5),
    ]
    assert bounds_of(v=suite) == Bounds(
        features={"v__x": Bound(low=0.0, high=9.0), "v__word": Bound(allowed=("a", "b"))}
    )


def test_what_a_suite_says_of_labels_is_said_of_requests() -> None:
    suite = [
        between("amount", 1, 2),
        gxe.ExpectColumnValuesToNotBeNull(column="id"),
        gxe.ExpectColumnValuesToBeInSet(column="remark", value_set=["x"]),
        gxe.ExpectColumnValuesToBeInSet(column="l", value_set=[0, 1]),
    ]
    found = bounds_of(labels=suite)
    amount = Bound(low=1.0, high=2.0)
    assert found.features == {"request__amount": amount}
    assert found.fields == {"id": Bound(nullable=False), "amount": amount, "note": Bound(allowed=("x",))}


def test_a_suite_of_its_own_wins() -> None:
    found = bounds_of(labels=[between("amount", 1, 2)], labels_m=[between("amount", 3, 4)])
    assert found.fields == {"amount": Bound(low=3.0, high=4.0)}


@pytest.mark.parametrize(
    "expectation",
    [
        between("x", 0, 1, mostly=0.99),
        between("x", 0, 1, severity=FailureSeverity.WARNING),
        between("x", 0, 1, row_condition=Column("x") > 3),
        between("word", 0, 1),
        gxe.ExpectColumnValuesToBeInSet(column="raw", value_set=["a"]),
        gxe.ExpectColumnValuesToNotBeInSet(column="x", value_set=[1]),
    ],
)
def test_what_some_rows_break_or_cannot_be_compared_is_no_bound(expectation: Expectation) -> None:
    assert bounds_of(v=[expectation]) == Bounds()


def test_strict_limits_leave_their_ends_out() -> None:
    bound = bounds_of(v=[between("x", 0, 1, strict_min=True, strict_max=True)]).features["v__x"]
    assert not bound.contains(0.0)
    assert not bound.contains(1.0)
    assert bound.contains(math.nextafter(0.0, 1.0))
    assert bound.contains(math.nextafter(1.0, 0.0))


def test_times_are_microseconds() -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    suite = [gxe.ExpectColumnValuesToBeBetween(column="at", min_value=moment)]
    assert bounds_of(v=suite).features["v__at"].low == moment.timestamp() * 1e6
