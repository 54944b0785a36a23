"""The request-time transform: row independence, and clocks against other sources."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from transforms import Column, departure

Columns = dict[str, Column]

REALS = ["distance", "temp", "dewp"]
WHOLES = ["sched_dep", "sched_dep_local", "sched_arr_local"]
EXTREME_WHOLES = [0, 1, -1, 59, 60, 1260, 2359, 2400, 2401, 2**31, 2**53 + 1, 2**58, 2**63 - 1, -(2**63)]
EXTREME_REALS = [0.0, -0.0, 1.0, 1e300, -1e300, 5e-324, np.nan, np.inf, -np.inf, 2.0**63]

wholes = st.one_of(st.integers(0, 2400), st.sampled_from(EXTREME_WHOLES), st.integers(-(2**63), 2**63 - 1))
reals = st.one_of(st.sampled_from(EXTREME_REALS), st.floats(width=64))
rows = st.lists(st.tuples(wholes, wholes, wholes, reals, reals, reals), min_size=1, max_size=40)


def columns(table: list[tuple[int, int, int, float, float, float]]) -> Columns:
    """Return rows as the arrays that a transform is given."""
    whole = {name: np.array([row[i] for row in table], dtype=np.int64) for i, name in enumerate(WHOLES)}
    real = {name: np.array([row[i + 3] for row in table], dtype=np.float64) for i, name in enumerate(REALS)}
    return {**whole, **real}


@given(rows)
def test_each_row_depends_on_itself_alone(table: list[tuple[int, int, int, float, float, float]]) -> None:
    inputs = columns(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = departure(dict(inputs))
        for i in range(len(table)):
            single = departure({name: column[i : i + 1] for name, column in inputs.items()})
            for name, column in whole.items():
                assert column.dtype == np.float64
                assert column.shape == (len(table),)
                assert column[i : i + 1].tobytes() == single[name].tobytes()


@given(st.lists(st.tuples(reals, reals, reals, reals, reals, reals), min_size=1, max_size=20))
def test_whole_numbers_may_come_as_floats_with_nulls(table: list[tuple[float, ...]]) -> None:
    inputs = {name: np.array([row[i] for row in table]) for i, name in enumerate([*WHOLES, *REALS])}
    outputs = departure(dict(inputs))
    unknown = np.isnan(inputs["sched_dep_local"])
    assert np.isnan(outputs["weekday"][unknown | np.isnan(inputs["sched_dep"])]).all()
    assert np.isnan(outputs["local_hour"][unknown]).all()


def test_the_clock_and_weekday_are_those_of_the_raw_files(paired: pd.DataFrame) -> None:
    inputs: Columns = {name: paired[name].to_numpy(dtype=np.int64) for name in WHOLES[1:]}
    inputs["sched_dep"] = paired["sched_dep"].to_numpy(dtype="datetime64[us]").astype(np.int64)
    inputs |= {"distance": paired["distance"].to_numpy(), "temp": np.zeros(len(paired)), "dewp": np.ones(len(paired))}
    outputs = departure(dict(inputs))
    date = pd.to_datetime(paired[["year", "month", "day"]])
    assert (outputs["weekday"] == date.dt.dayofweek).all()
    assert (outputs["local_hour"] == paired["hour"]).all()
    assert (outputs["local_minute"] == paired["hour"] * 60 + paired["minute"]).all()
    arrival = paired["sched_arr_time"].astype(str).str.zfill(4)
    assert (outputs["arrival_minute"] == arrival.str[:2].astype(int) % 24 * 60 + arrival.str[2:].astype(int)).all()
    assert (outputs["dew_spread"] == -1.0).all()
    assert (outputs["miles"] == paired["distance"]).all()


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - a local clock
    st.integers(-11, 11),
)
def test_weekday_is_found_for_any_offset_below_half_a_day(local: datetime, hours: int) -> None:
    instant = local.replace(tzinfo=timezone(timedelta(hours=hours)), second=0, microsecond=0)
    microseconds = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    outputs = departure(columns([(microseconds, local.hour * 100 + local.minute, 0, 0.0, 0.0, 0.0)]))
    assert outputs["weekday"][0] == local.weekday()


def test_no_clock_shows_61_minutes_or_25_hours() -> None:
    outputs = departure(columns([(0, clock, clock, 0.0, 0.0, 0.0) for clock in (1261, 2500, -1, 2401)]))
    assert all(np.isnan(outputs[name]).all() for name in ("local_hour", "local_minute", "arrival_minute", "weekday"))


def test_lists_as_feast_passes_them_give_lists() -> None:
    moment = datetime(2026, 8, 5, 13, 45, tzinfo=UTC)
    outputs = departure(
        {
            "sched_dep": [moment, None],
            "sched_dep_local": [945, 945],
            "sched_arr_local": [1200, None],
            "distance": [100.0, None],
            "temp": [50.0, None],
            "dewp": [45.0, 45.0],
        }
    )
    assert {name: values[0] for name, values in outputs.items()} == {
        "local_hour": 9.0,
        "local_minute": 585.0,
        "weekday": 2.0,
        "arrival_minute": 720.0,
        "clock_minutes": 135.0,
        "miles": 100.0,
        "dew_spread": 5.0,
    }
    assert [name for name, values in outputs.items() if not np.isnan(values[1])] == ["local_hour", "local_minute"]
    assert {type(values).__name__ for values in outputs.values()} == {"list"}
