"""The arithmetic of ``skewless capacity``, against numbers that were computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.window_events import view as window_view
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.measured_costs import COSTS, DRIVER, EVENT, LATEST, REPLAY, SCAN, VALUE
from skewless.contract.online_size import row_memory, state_memory
from skewless.contract.plan import BUCKETS, FeaturePlan
from skewless.contract.windows.view import Function
from skewless.operations.capacity import CapacityReport, Figure, capacity
from tests.worlds.plans import make_plan, make_view

VIEW = make_view(features={"x": DType.FLOAT64, "s": DType.STRING})
PLAN = make_plan(["v.x"], views=[VIEW])
WINDOWS = replace(PLAN, views=(), windows=(window_view(),))


def report(plan: FeaturePlan = WINDOWS, **size: Any) -> CapacityReport:  # noqa: ANN401 - of any option
    project: Any = SimpleNamespace(applied=SimpleNamespace(plan=plan))
    return capacity(project, **{"entities": 1_000, **size})


def figure(name: str, plan: FeaturePlan = WINDOWS, **size: Any) -> Figure:  # noqa: ANN401 - of any option
    (found,) = (each for each in report(plan, **size).figures if each.name == name)
    return found


def test_a_training_set_on_one_core_takes_the_sum_of_its_costs() -> None:
    needed = figure("training set", events_per_day=1_000_000, days=10, rows=1_000_000, hours=1_000)
    values = 12  # million
    expected = 10 * EVENT.value + values * (VALUE.value + DRIVER.value)
    assert needed.cores == 1
    assert needed.seconds == pytest.approx(expected)


def test_rows_of_latest_views_count_their_log_and_their_entity_rows() -> None:
    needed = figure("training set", PLAN, entities=1_000_000, days=30, rows=2_000_000, hours=1_000)
    assert needed.seconds == pytest.approx((30 + 2) * LATEST.value + 2 * 2 * DRIVER.value)


@pytest.mark.parametrize("hours", [0.05, 0.1, 0.5, 2.0])
def test_the_cores_are_the_fewest_that_are_fast_enough(hours: float) -> None:
    needed = figure("training set", events_per_day=10_000_000, days=30, rows=300_000_000, hours=hours)
    events, values = 300, 300 * 12
    undivided = SCAN.value * events + DRIVER.value * values
    divided = (EVENT.value - SCAN.value) * events + VALUE.value * values
    assert needed.cores is not None
    assert needed.seconds == pytest.approx(undivided + divided / needed.cores)
    assert undivided + divided / needed.cores <= hours * 3_600
    assert needed.cores == 1 or undivided + divided / (needed.cores - 1) > hours * 3_600


def test_work_that_no_number_of_cores_does_in_time_has_its_least_time() -> None:
    needed = figure("training set", events_per_day=10**9, days=365, rows=1, hours=1)
    assert needed.cores is None
    least = SCAN.value * 365_000 + (EVENT.value - SCAN.value) * 365_000 / BUCKETS
    assert needed.seconds == pytest.approx(least, rel=1e-6)


def test_no_more_cores_than_buckets_divide_the_work() -> None:
    needed = figure("replay of a day", predictions_per_second=1e9, hours=1)
    assert needed.cores is None
    assert needed.seconds == pytest.approx(1e9 * 86_400 / REPLAY.value / BUCKETS)


@pytest.mark.parametrize("functions", [(Function.SUM,), (Function.COUNT_DISTINCT,), (Function.MAX, Function.LAST)])
def test_a_state_grows_with_events_by_less_and_less(functions: tuple[Function, ...]) -> None:
    """So the mean of states with hot keys is below the state of the mean key."""
    view, rates = window_view(functions), [2**n for n in range(-4, 16)]
    sizes = [state_memory("p", view, 16, events_per_day=rate, days=30) for rate in rates]
    assert sizes == sorted(sizes)
    assert sizes[-1] < 2 * sizes[-2]
    assert state_memory("p", view, 16, events_per_day=0, days=30) < 400


def test_texts_make_rows_longer() -> None:
    assert row_memory("p", VIEW, 300) - row_memory("p", VIEW, 16) >= 256


@pytest.mark.parametrize("name", ["entities", "days", "hours", "text_bytes"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 10**400])
def test_a_number_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(RequestError, match=f"option --{name.replace('_', '-')}: is out of range"):
        report(WINDOWS, **{name: value})


def test_each_figure_names_costs_with_a_source() -> None:
    full = report(replace(WINDOWS, views=PLAN.views), events_per_day=1, rows=1, predictions_per_second=0.5).as_dict()
    known = {cost.name: cost for cost in COSTS}
    for each in full["figures"]:
        assert each["tested"]
        assert set(each["costs"]) <= known.keys()
        assert each["costs"] or each["formula"] == "not measured"
        assert all(name in each["formula"] or name == "key" for name in each["costs"])
    assert {cost["name"] for cost in full["costs"]} == known.keys()
    assert all(cost["measured"] for cost in full["costs"])
