"""The loaded flights against the raw files, row by row and by brute force."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from models import MODELS

from skewless_demo.flights.loading import load
from skewless_demo.flights.tables import read_raw
from skewless_demo.flights.times import minutes_of_day, scheduled_arrival

from .conftest import NOW, Flights, raw_folder

ZONES = {"SJU": "America/Puerto_Rico", "BQN": "America/Puerto_Rico", "PSE": "America/Puerto_Rico", "STT": "Etc/GMT+4"}
DAYS = {"carrier_days": ["carrier"], "route_days": ["origin", "dest"], "plane_days": ["tailnum"]}
WINDOWS = (1, 7, 28)


def test_the_counts_are_those_of_the_package(flights: Flights) -> None:
    report = flights.report
    assert (report.flights, report.cancelled, report.unlabelled) == (336_776, 8_255, 9_430)
    assert (report.without_weather, report.without_plane) == (1_556, 52_606)
    assert report.late_share == pytest.approx(0.237, abs=0.0005)
    assert report.rows == {name: len(table) for name, table in flights.tables.items()}
    assert report.rows["plane_days"] < 250_000


def test_the_report_says_how_far_times_were_moved(flights: Flights) -> None:
    assert f"moved by {flights.report.weeks} weeks" in flights.report.lines()[0]


def test_the_counts_hold_in_the_written_files(flights: Flights) -> None:
    table, weather = flights.tables["flights"], flights.tables["weather"]
    hours = set(zip(weather["origin"], weather["event_time"], strict=True))
    wanted = zip(table["origin"], table["sched_dep"].dt.floor("h"), strict=True)
    assert sum(key not in hours for key in wanted) == 1_556
    assert int((~table["tailnum"].isin(flights.tables["planes"]["tailnum"])).sum()) == 52_606
    assert int(table["dep_delay"].isna().sum()) == 8_255
    assert table["late"].isna().equals(table["known_at"].isna())


def test_the_year_ends_within_a_week_before_now(flights: Flights) -> None:
    table = flights.tables["flights"]
    last = max(table["sched_dep"].max(), table["known_at"].max())
    assert timedelta(0) <= NOW - last < timedelta(weeks=1)
    assert last == flights.report.last


@pytest.mark.parametrize("name", ["flights", "weather", "planes", *DAYS])
def test_nothing_lies_after_now(flights: Flights, name: str) -> None:
    times = flights.tables[name].select_dtypes("datetimetz")
    assert len(times.columns) == (2 if name == "flights" else 1)
    assert (times.max() <= NOW).all()


@pytest.mark.parametrize("name", ["flights", "weather", "planes", *DAYS])
def test_times_are_microseconds_in_utc(flights: Flights, name: str) -> None:
    for path in (flights.data / name).iterdir():
        schema = pq.read_schema(path)
        stamps = [field.type for field in schema if pa.types.is_timestamp(field.type)]
        assert stamps
        assert set(stamps) == {pa.timestamp("us", tz="UTC")}


def test_weekdays_are_kept(flights: Flights, paired: pd.DataFrame) -> None:
    assert len(paired) == 336_776
    assert (paired["sched_dep"].dt.dayofweek == paired["instant"].dt.dayofweek).all()
    assert (paired["sched_dep"] - paired["instant"] == pd.Timedelta(weeks=flights.report.weeks)).all()


def test_flights_are_sorted_by_their_time(flights: Flights) -> None:
    assert flights.tables["flights"]["sched_dep"].is_monotonic_increasing


def test_the_label_is_more_than_15_minutes_late(paired: pd.DataFrame) -> None:
    known = paired.dropna(subset=["late"])
    assert (known["late"].astype(bool) == (known["arr_delay_raw"] > 15)).all()
    assert paired.loc[paired["late"].isna(), "arr_delay_raw"].isna().all()


def test_a_clock_at_the_destination_shows_the_arrival_time(flights: Flights, paired: pd.DataFrame) -> None:
    arrived = paired.dropna(subset=["known_at"])
    zone = arrived["dest"].map({**airport_zones(), **ZONES})
    wrong = 0
    for name, rows in arrived.groupby(zone):
        local = (rows["known_at"] - pd.Timedelta(weeks=flights.report.weeks)).dt.tz_convert(str(name))
        wrong += int((local.dt.hour * 100 + local.dt.minute != rows["arr_time"] % 2400).sum())
    # One flight reports 2:03 in the night in which that minute was skipped.
    assert wrong == 1


def test_arrivals_leave_time_for_the_flight(paired: pd.DataFrame) -> None:
    arrived = paired.dropna(subset=["known_at"])
    left = arrived["sched_dep"] + pd.to_timedelta(arrived["dep_delay_raw"], unit="m")
    on_ground = (arrived["known_at"] - left).dt.total_seconds() / 60 - arrived["air_time"]
    assert on_ground.between(0, 240).all()


@pytest.mark.parametrize(
    ("departure", "clock", "zone", "arrival"),
    [
        ("2013-01-05 22:00", 30, "America/New_York", "2013-01-06 05:30"),
        ("2013-03-10 05:30", 130, "America/New_York", "2013-03-10 06:30"),
        ("2013-03-10 05:30", 230, "America/New_York", "2013-03-10 07:30"),  # skipped: counted on
        ("2013-03-10 05:30", 330, "America/New_York", "2013-03-10 07:30"),
        ("2013-11-03 04:30", 130, "America/New_York", "2013-11-03 05:30"),  # doubled: the first
        ("2013-11-03 04:30", 230, "America/New_York", "2013-11-03 07:30"),
        ("2013-07-01 12:00", 2400, "Pacific/Honolulu", "2013-07-02 10:00"),
    ],
)
def test_scheduled_arrivals_around_the_clock_changes(departure: str, clock: int, zone: str, arrival: str) -> None:
    instant = pd.Timestamp(departure)
    row = pd.DataFrame(
        {"time_hour": [instant.floor("h")], "minute": [instant.minute], "dest": ["X"], "sched_arr_time": [clock]}
    )
    assert scheduled_arrival(row, {"X": zone}).iloc[0] == pd.Timestamp(arrival)


def test_minutes_of_day() -> None:
    assert minutes_of_day(np.array([1, 59, 100, 2359, 2400])).tolist() == [1, 59, 60, 1439, 1440]


@pytest.mark.parametrize("name", DAYS)
def test_statistics_end_at_midnight_in_new_york(flights: Flights, name: str) -> None:
    original = flights.tables[name]["event_time"] - pd.Timedelta(weeks=flights.report.weeks)
    local = original.dt.tz_convert("America/New_York")
    assert (local == local.dt.normalize()).all()
    assert not flights.tables[name].duplicated([*DAYS[name], "event_time"]).any()


@pytest.mark.parametrize("name", DAYS)
def test_statistics_use_only_what_was_known(flights: Flights, name: str) -> None:
    """Recompute a sample of rows from the flights that had landed by then."""
    weeks = pd.Timedelta(weeks=flights.report.weeks)
    landed = flights.tables["flights"].dropna(subset=["known_at"])
    of_key = landed.groupby(DAYS[name]).indices
    for row in flights.tables[name].sample(60, random_state=5).to_dict("records"):
        key = tuple(row[column] for column in DAYS[name])
        mine = landed.iloc[of_key.get(key if len(key) > 1 else key[0], [])]
        past = mine[mine["known_at"] <= row["event_time"]]
        end = (row["event_time"] - weeks).tz_convert("America/New_York")
        for days in WINDOWS:
            begin = (end - pd.DateOffset(days=days)).tz_convert("UTC") + weeks
            inside = past[past["known_at"] >= begin]
            assert row[f"flights_{days}d"] == len(inside)
            assert row[f"late_share_{days}d"] == inside["late"].mean()
            assert row[f"arr_delay_{days}d"] == pytest.approx(inside["arr_delay"].mean(), rel=1e-12)
            assert row[f"dep_delay_{days}d"] == pytest.approx(inside["dep_delay"].mean(), rel=1e-12)


@pytest.mark.soak
def test_loading_again_gives_the_same_bytes_and_leaves_other_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_raw()
    part = replace(whole, flights=whole.flights.iloc[::20])  # of all days, carriers and airports
    monkeypatch.setattr("load.read_raw", lambda: part)
    first, again = tmp_path / "first", tmp_path / "again"
    load(first, NOW, MODELS[0])
    other = again / "mine.txt"
    other.parent.mkdir()
    other.write_text("keep")
    stale = again / "weather" / "stale.parquet"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    load(again, NOW, MODELS[0])
    assert other.read_text() == "keep"
    assert not stale.exists()
    written = {path.relative_to(first): path.read_bytes() for path in first.rglob("*.parquet")}
    assert len(written) > 30
    assert written == {path.relative_to(again): path.read_bytes() for path in again.rglob("*.parquet")}


def airport_zones() -> dict[str, str]:
    """Return the zones of the package's airports, read without the project's code."""
    table = pd.read_csv(raw_folder() / "airports.csv").dropna(subset=["tzone"])
    return dict(zip(table["faa"], table["tzone"], strict=True))
