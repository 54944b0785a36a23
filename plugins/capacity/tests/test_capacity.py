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
from skewless.contract.plan import BUCKETS, FeaturePlan
from skewless.contract.windows.view import Function
from skewless_capacity.capacity import CapacityReport, Figure, capacity
from skewless_capacity.measured_costs import COSTS, DRIVER, EVENT, LATEST, REPLAY, SCAN, VALUE
from skewless_capacity.online_size import row_memory, state_memory
from skewless_capacity.prediction_cost import Prices
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
    known, used = {cost.name: cost for cost in COSTS}, set()
    for callers in (1, 16, 64):
        plan = replace(WINDOWS, views=PLAN.views)
        full = report(plan, events_per_day=1, rows=1, predictions_per_second=0.5, callers=callers).as_dict()
        for each in full["figures"] + full["million_predictions"]["parts"]:
            assert each["tested"]
            assert set(each["costs"]) <= known.keys()
            assert each["costs"] or each["formula"] == "not measured"
            assert all(name in each["formula"] or name == "key" for name in each["costs"])
        assert all(cost["measured"] for cost in full["costs"])
        used |= {cost["name"] for cost in full["costs"]}
    assert used == known.keys()


@pytest.mark.parametrize(
    ("callers", "batch", "cpu_s"),
    [(1, 1, 295.0), (15, 1, 295.0), (16, 1, 71.4), (63, 1, 71.4), (64, 1, 56.3), (1, 100, 20.0), (16, 100, 17.0)],
)
def test_the_cpu_of_a_million_predictions_meets_what_was_measured(callers: int, batch: int, cpu_s: float) -> None:
    (server, *_) = report(PLAN, callers=callers, batch=batch).predictions
    assert server.name == "server"
    assert server.cpu_s == pytest.approx(cpu_s)


def test_larger_requests_never_cost_more() -> None:
    for callers in (1, 16, 64):
        costs = [report(PLAN, callers=callers, batch=n).predictions[0].cpu_s or 0.0 for n in (1, 2, 10, 100, 10_000)]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] > 0


def test_the_bytes_that_redis_sends_are_those_that_the_benchmark_read() -> None:
    view = make_view(features={f"x{i}": DType.FLOAT64 for i in range(20)})
    twice = make_plan(["v.x0", "w.x0"], views=[view, replace(view, name="w")])
    read = next(part for part in report(twice).predictions if part.name == "reads of Redis")
    assert read.size_bytes == pytest.approx(443e6, rel=0.02)
    assert read.cpu_s == pytest.approx(8.55)


def test_the_price_of_a_million_predictions() -> None:
    prices = {"price_core_hour": 0.36, "price_memory_gb_month": 8, "price_storage_gb_month": 0.02}
    parts = {part.name: part for part in report(PLAN, predictions_per_second=100.0, **prices).predictions}
    assert parts["server"].cost == pytest.approx(71.4 / 3_600 / 0.5 * 0.36)
    assert parts["prediction log, kept for a month"].cost == pytest.approx(0.226 * 0.02)
    memory_gb = 1_000 * row_memory(PLAN.project, VIEW, 16) / 1e9
    assert parts["memory of Redis"].cost == pytest.approx(memory_gb * 8 * 10_000 / 2_629_746, rel=1e-3)
    body = report(PLAN, predictions_per_second=100.0, **prices).as_dict()["million_predictions"]
    assert body["total"]["cost"] == pytest.approx(sum(part.cost or 0 for part in parts.values()))
    free = report(PLAN).as_dict()["million_predictions"]
    assert (free["total"]["cost"], free["total"]["cpu_s"] > 0) == (None, True)


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [("core_hour", -1.0, "--price-core-hour"), ("utilization", 0.0, "--utilization"), ("utilization", 1.5, "--utiliz")],
)
def test_a_price_out_of_range_is_rejected(name: str, value: float, option: str) -> None:
    with pytest.raises(RequestError, match=option):
        Prices(**{name: value})


def test_a_plan_without_views_reads_nothing() -> None:
    parts = [part.name for part in report(replace(PLAN, views=())).predictions]
    assert parts == ["server", "prediction log, kept for a month"]
