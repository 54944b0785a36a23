"""The events of the flights: how many, when, and what is odd about those that are sent."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lateness import late_arrival, late_departure

from skewless_demo.flights.events import KINDS, event_tables, live_start, messages

from .conftest import NOW, Flights

HOUR = pd.Timedelta(hours=1)
FLOWN = {"departures": 328_521, "arrivals": 327_346}


def past(flights: Flights, name: str) -> pd.DataFrame:
    return pd.read_parquet(flights.data / name / "history")


def live(flights: Flights, name: str) -> pd.DataFrame:
    return pd.read_parquet(flights.data / name / "live")


def decoded(payloads: pd.Series[Any]) -> pd.DataFrame:
    """Return the messages that are whole JSON objects."""
    rows = []
    for payload in payloads:
        try:
            rows.append(json.loads(payload))
        except ValueError:
            continue
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", KINDS)
def test_every_flight_that_flew_is_one_event(flights: Flights, name: str) -> None:
    whole = event_tables(flights.tables["flights"])[name]
    assert len(whole) == FLOWN[name]
    assert whole["event_id"].is_unique
    assert whole[KINDS[name].time].is_monotonic_increasing
    report = flights.report.events[name]
    assert report.past == len(past(flights, name))
    assert report.past + report.live - report.twice - report.broken == FLOWN[name]


@pytest.mark.parametrize("name", KINDS)
def test_the_past_ends_where_the_clock_of_the_demo_begins(flights: Flights, name: str) -> None:
    table = flights.tables["flights"]
    start = live_start(table, HOUR, pd.Timedelta(days=14))
    first_asked = table["sched_dep"].max() - HOUR - pd.Timedelta(days=14)
    assert HOUR <= first_asked - start < 2 * HOUR
    assert past(flights, name)[KINDS[name].time].max() < start
    assert live(flights, name)["at"].min() >= start
    assert (past(flights, name)[KINDS[name].time] <= NOW).all()


def test_the_labels_of_decisions_end_there_too(flights: Flights) -> None:
    table = flights.tables["flights"]
    start = live_start(table, HOUR, pd.Timedelta(days=14))
    before, after = (pd.read_parquet(flights.data / "departed" / name) for name in ("history", "live"))
    assert before["departed_at"].max() < start <= after["departed_at"].min()
    assert len(before) + len(after) == FLOWN["departures"]
    # A label row has the fields of its event, by which the decision about it is found.
    fields = ["carrier", "origin", "dest", "tailnum", "sched_dep", "distance", "dep_delay", "departed_at"]
    events = past(flights, "departures")[fields].sort_values(fields, ignore_index=True)
    pd.testing.assert_frame_equal(before[fields].sort_values(fields, ignore_index=True), events, check_dtype=False)


@pytest.mark.parametrize("name", KINDS)
def test_an_event_tells_what_the_flight_tells(flights: Flights, name: str) -> None:
    kind, table = KINDS[name], flights.tables["flights"]
    whole = event_tables(table)[name].sample(2_000, random_state=3)
    flown = table.loc[whole["event_id"]]
    for column in ("carrier", "origin", "dest", "tailnum", kind.delay):
        assert whole[column].tolist() == flown[column].tolist()
    expected = {
        "departures": flown["sched_dep"] + pd.to_timedelta(flown["dep_delay"], unit="m"),
        "arrivals": flown["known_at"],
    }
    assert whole[kind.time].tolist() == expected[name].tolist()


@pytest.mark.parametrize("name", KINDS)
def test_no_event_is_sent_before_it_has_happened(flights: Flights, name: str) -> None:
    kind, sent = KINDS[name], live(flights, name)
    assert sent["at"].is_monotonic_increasing
    events = decoded(sent["payload"])
    whole = sent[[payload.endswith(b"}") for payload in sent["payload"]]].reset_index(drop=True)
    happened = pd.to_datetime(events[kind.time], utc=True)
    sane = (happened < pd.Timestamp("2100-01-01", tz="UTC")).to_numpy()
    wait = whole["at"][sane] - happened[sane]
    assert (wait >= pd.Timedelta(0)).all()
    assert wait.max() <= pd.Timedelta(hours=8)


@pytest.mark.parametrize("name", KINDS)
def test_about_two_of_a_hundred_come_late_and_one_comes_twice(flights: Flights, name: str) -> None:
    report = flights.report.events[name]
    sent, events = live(flights, name), decoded(live(flights, name)["payload"])
    assert 0.015 < report.late / report.live < 0.025
    assert 0.007 < report.twice / report.live < 0.013
    # Three of the broken ones are objects that carry the number of a sound one.
    assert int(events["event_id"].duplicated().sum()) == report.twice + 3
    assert report.broken == len(sent) - len(events) + 3 == 4


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_twice_has_one_key(flights: Flights, name: str) -> None:
    sent = live(flights, name)
    assert (sent.groupby("payload")["key"].nunique() == 1).all()


def test_without_events_nothing_is_sent(flights: Flights) -> None:
    nothing = event_tables(flights.tables["flights"])["arrivals"].iloc[:0]
    sent = messages("arrivals", nothing)
    assert (len(sent.table), sent.late, sent.twice, sent.broken) == (0, 0, 0, 0)


def test_another_seed_makes_others_late(flights: Flights) -> None:
    events = event_tables(flights.tables["flights"])["arrivals"].iloc[:2_000].reset_index(drop=True)
    one, same, other = messages("arrivals", events), messages("arrivals", events), messages("arrivals", events, seed=1)
    assert one.table.equals(same.table)
    assert not one.table.equals(other.table)


def test_lateness_is_more_than_15_minutes() -> None:
    minutes = np.array([15.0, 16.0, -3.0, np.nan])
    for late in (late_departure({"dep_delay": minutes}), late_arrival({"arr_delay": minutes})):
        np.testing.assert_array_equal(late["late"], [0.0, 1.0, 0.0, np.nan])
