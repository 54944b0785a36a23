"""The tables of the project, built from the raw files. All times are naive UTC of the original year."""

from __future__ import annotations

import numpy as np
import pandas as pd
from flights_days import day_statistics
from flights_raw import RawFlights
from flights_times import actual_arrival, home_midnight, scheduled_departure

LATE_MINUTES = 15
MEASURES = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
DAY_KEYS = {"carrier_days": ["carrier"], "route_days": ["origin", "dest"], "plane_days": ["tailnum"]}


def build_tables(raw: RawFlights) -> dict[str, pd.DataFrame]:
    """Return all tables by name, each sorted by its time and keys."""
    flights = flights_table(raw)
    # A few flights land in the next year, on a day with only its first hours in the files.
    whole_days = flights[flights["known_at"] < year_start(raw, 1)]
    return {
        "flights": flights,
        "weather": weather_table(raw.weather),
        "planes": planes_table(raw),
        **{name: day_statistics(whole_days, keys) for name, keys in DAY_KEYS.items()},
    }


def flights_table(raw: RawFlights) -> pd.DataFrame:
    """Return one row per scheduled flight: keys, request fields, label and its known time.

    ``late`` and ``known_at`` are null for flights that were cancelled or diverted.
    """
    flights = raw.flights
    has_label = flights["arr_delay"].notna()
    late = (flights["arr_delay"] > LATE_MINUTES).astype("Int64").where(has_label)
    table = flights[["carrier", "origin", "dest", "tailnum", "flight"]].assign(
        sched_dep=scheduled_departure(flights),
        sched_dep_local=flights["sched_dep_time"],
        sched_arr_local=flights["sched_arr_time"],
        distance=flights["distance"].astype(np.float64),
        dep_delay=flights["dep_delay"],
        arr_delay=flights["arr_delay"],
        late=late,
        known_at=actual_arrival(flights, raw.zones),
    )
    return table.sort_values(["sched_dep", "carrier", "flight", "origin", "dest"], ignore_index=True)


def weather_table(weather: pd.DataFrame) -> pd.DataFrame:
    """Return one row per origin and hour, as measured at that hour."""
    table = weather[["origin"]].assign(event_time=weather["time_hour"], **{m: weather[m] for m in MEASURES})
    return table.astype(dict.fromkeys(MEASURES, "float64")).sort_values(["event_time", "origin"], ignore_index=True)


def planes_table(raw: RawFlights) -> pd.DataFrame:
    """Return one row per plane, with the day before the year as event time."""
    facts = raw.planes[["tailnum", "year", "manufacturer", "engines", "seats", "engine", "type"]]
    table = facts.assign(event_time=year_start(raw) - pd.Timedelta(days=1), year=facts["year"].astype("Int64"))
    return table.sort_values("tailnum", ignore_index=True)


def year_start(raw: RawFlights, later: int = 0) -> pd.Timestamp:
    """Return the instant at which the year of the flights, or one some years later, began in New York."""
    first = pd.Series([pd.Timestamp(year=int(raw.flights["year"].min()) + later, month=1, day=1)])
    return home_midnight(first).iloc[0]


def last_instant(tables: dict[str, pd.DataFrame]) -> pd.Timestamp:
    """Return the last time of all tables."""
    times = [table[name].max() for table in tables.values() for name in time_columns(table)]
    last: pd.Timestamp = max(times)
    return last


def time_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the time columns of a table."""
    return list(table.select_dtypes("datetime").columns)
