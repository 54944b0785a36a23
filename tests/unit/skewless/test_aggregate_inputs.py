"""What aggregates take of events; what they cannot take does not count, and is never cut."""

from __future__ import annotations

import pyarrow as pa

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.windows.aggregate_inputs import find_unsummable, find_values_beyond, measure_columns
from skewless.contract.windows.hops import HOUR, MINUTE
from skewless.contract.windows.view import Aggregate, Function, WindowView


def view(function: Function) -> WindowView:
    return WindowView(
        name="v",
        keys=(Column(name="id", dtype=DType.INT64),),
        source="s",
        event_column="ts",
        inputs=(Column(name="x", dtype=DType.FLOAT64),),
        aggregates=(Aggregate(name="f", column="x", function=function, window_us=HOUR, hop_us=5 * MINUTE),),
        scales={"x": 2},
    )


def test_3_3_a_value_that_a_younger_view_cannot_sum_does_not_count() -> None:
    rows = {"x": pa.array([1.0, None, 1e300])}
    assert find_values_beyond(view(Function.SUM), rows)["x"].tolist() == [False, False, True]
    assert find_unsummable(measure_columns(view(Function.SUM), rows), 3).tolist() == [False, False, True]
    largest = measure_columns(view(Function.MAX), rows)
    assert find_unsummable(largest, 3).tolist() == [False, False, False]
    assert largest["x"].value[2] == 1e300


def test_3_3_squares_have_less_room_than_sums() -> None:
    rows = {"x": pa.array([2.0**40])}
    summed = measure_columns(view(Function.SUM), rows)
    assert summed["x"].fixed.tolist() == [100 * 2**40]
    assert find_unsummable(summed, 1).tolist() == [False]
    assert find_unsummable(measure_columns(view(Function.VAR), rows), 1).tolist() == [True]
