from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.bounds import Bound, Bounds
from skewless.contract.bounds_check import BoundsCheck
from skewless.contract.dtypes import DType
from skewless.contract.request import RowParser
from tests.worlds.plans import make_plan, make_view

PLAN = make_plan(
    ["v.x", "v.y", "request.amount"],
    views=[make_view("v", features={"x": DType.FLOAT64, "y": DType.FLOAT64})],
    request={"amount": DType.FLOAT64, "kind": DType.STRING},
)
KEY = "id"
NAN = math.nan


def check(bounds: Bounds) -> BoundsCheck:
    return BoundsCheck(PLAN, {}, bounds)


def shown(found: npt.NDArray[np.bool_] | None, bounds: BoundsCheck) -> list[list[str]]:
    assert found is not None
    return [[name for name, broken in zip(bounds.names, row, strict=True) if broken] for row in found.tolist()]


def test_a_document_comes_back() -> None:
    bounds = Bounds(
        features={"v__x": Bound(low=0.0, high=1.0)}, fields={"kind": Bound(allowed=("a", "b"), nullable=False)}
    )
    assert Bounds.from_dict(json.loads(json.dumps(bounds.as_dict()))) == bounds
    assert Bounds.from_dict({}) == Bounds()


@given(
    st.lists(st.one_of(st.floats(allow_infinity=True), st.just(NAN)), min_size=1, max_size=30),
    st.one_of(st.none(), st.floats(-5, 5)),
    st.one_of(st.none(), st.floats(-5, 5)),
)
def test_numbers_are_judged_as_one_value_alone_is(values: list[float], low: float | None, high: float | None) -> None:
    bound = Bound(low=low, high=high)
    bounds = check(Bounds(features={"v__y": bound}))
    matrix = np.full((len(values), 3), 99.0)
    matrix[:, 1] = values
    found = bounds.find_outside(matrix, None)
    broken = [False] * len(values) if found is None else found[:, 0].tolist()
    assert broken == [not bound.contains(value) for value in values]


def test_only_the_columns_that_are_bounded_are_looked_at() -> None:
    bounds = check(Bounds(features={"v__y": Bound(low=0.0), "v__x": Bound(allowed=(1.0, 3.0))}))
    matrix = np.array([[1.0, 0.0, -9.0], [2.0, -1.0, -9.0], [NAN, NAN, -9.0], [3.0, -0.5, 0.0]])
    before = matrix.copy()
    assert bounds.names == ("v__x", "v__y")
    assert shown(bounds.find_outside(matrix, None), bounds) == [[], ["v__x", "v__y"], [], ["v__y"]]
    assert np.array_equal(matrix, before, equal_nan=True)
    assert bounds.find_outside(matrix[:1], None) is None


def test_fields_are_judged_as_they_were_sent() -> None:
    bounds = check(
        Bounds(
            features={"request__amount": Bound(high=10.0, nullable=False)},
            fields={
                "amount": Bound(high=10.0, nullable=False),
                "kind": Bound(allowed=("a", "b")),
                KEY: Bound(nullable=False),
            },
        )
    )
    parser = RowParser(PLAN)
    rows = [
        {KEY: 1, "amount": 5.0, "kind": "a"},
        {KEY: None, "amount": 11.0, "kind": None},
        {KEY: 2, "amount": None, "kind": "c"},
    ]
    columns = parser.parse_rows(rows)
    # The matrix says otherwise: with a request at hand it is not asked about request fields.
    found = bounds.find_outside(np.full((3, 3), 99.0), parser.build_rows(columns))
    assert shown(found, bounds) == [[], ["request__amount", KEY], ["request__amount", "kind"]]
    first = bounds.first_field_breach(columns)
    assert first is not None
    assert (first.row, first.field, first.name, first.value) == (1, "amount", "request__amount", 11.0)
    assert bounds.first_field_breach(parser.parse_rows(rows[:1])) is None


def test_vectors_are_judged_whole() -> None:
    bound = Bound(high=10.0)
    bounds = check(Bounds(features={"request__amount": bound}, fields={"amount": bound}))
    matrix = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 11.0]])
    assert shown(bounds.find_outside(matrix, None), bounds) == [[], ["request__amount"]]
    first = bounds.first_vector_breach(matrix)
    assert first is not None
    assert (first.row, first.name, first.value, first.bound) == (1, "request__amount", 11.0, bound)
    assert bounds.first_vector_breach(matrix[:1]) is None


def test_text_is_known_by_its_code() -> None:
    plan = make_plan(["v.x"], views=[make_view("v", features={"x": DType.STRING})])
    bounds = BoundsCheck(plan, {"v__x": ["a", "b", "c"]}, Bounds(features={"v__x": Bound(allowed=("a", "c", "z"))}))
    assert shown(bounds.find_outside(np.array([[0.0], [1.0], [2.0], [NAN]]), None), bounds) == [[], ["v__x"], [], []]


@pytest.mark.parametrize("value", [None, NAN])
def test_a_null_is_outside_only_where_it_may_not_be(value: float | None) -> None:
    assert Bound(low=0.0).contains(value)
    assert not Bound(low=0.0, nullable=False).contains(value)
    assert Bound().is_open
    assert not Bound(nullable=False).is_open


def test_bounds_on_one_column_are_joined() -> None:
    joined = Bound(low=0.0, allowed=(1.0, 2.0)).intersect(Bound(low=-3.0, high=5.0, allowed=(2.0, 7.0), nullable=False))
    assert joined == Bound(low=0.0, high=5.0, allowed=(2.0,), nullable=False)
