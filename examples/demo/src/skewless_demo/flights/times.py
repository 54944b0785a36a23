"""Instants of flights, from local clock times. All times here are in the original year, naive UTC."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Minutes = npt.NDArray[np.int64]

HOME = "America/New_York"
DAY = 24 * 60


def minutes_of_day(hhmm: npt.NDArray[Any]) -> Minutes:
    """Return minutes since midnight of clock times such as 1745; 2400 is 1440.

    >>> minutes_of_day(np.array([5, 1745, 2400])).tolist()
    [5, 1065, 1440]
    """
    clock = hhmm.astype(np.int64)
    return clock // 100 * 60 + clock % 100


def scheduled_departure(flights: pd.DataFrame) -> pd.Series[pd.Timestamp]:
    """Return the scheduled departures."""
    return flights["time_hour"] + pd.to_timedelta(flights["minute"], unit="m")


def scheduled_arrival(flights: pd.DataFrame, zones: dict[str, str]) -> pd.Series[pd.Timestamp]:
    """Return the scheduled arrivals: the first time after departure that the destination's clock shows them.

    A clock time that occurs twice is the first of the two; a skipped clock time is
    counted on from before the skip.

    Args:
        flights: rows of the package's table, with ``dest``, ``sched_arr_time`` and the departure's columns.
        zones: airport code -> name of its time zone.
    """
    zone = flights["dest"].map(zones)
    departure = scheduled_departure(flights)
    before = _offsets(departure, zone)
    clock = minutes_of_day(flights["sched_arr_time"].to_numpy())
    duration = (clock - (_minutes(departure) + before)) % DAY
    first = _plus(departure, duration)
    change = _offsets(first, zone) - before
    shifted = _plus(first, -change)
    # In a skipped hour no instant shows the clock time, so moving would not settle.
    is_exact = _offsets(shifted, zone) - before == change
    return shifted.where(is_exact, first)


def actual_arrival(flights: pd.DataFrame, zones: dict[str, str]) -> pd.Series[pd.Timestamp]:
    """Return the actual arrivals; NaT if the flight was cancelled or diverted."""
    return delayed(scheduled_arrival(flights, zones), flights["arr_delay"])


def delayed(instants: pd.Series[pd.Timestamp], minutes: pd.Series[float]) -> pd.Series[pd.Timestamp]:
    """Return instants moved by minutes; NaT if the minutes are null.

    As integers: of floats with nulls pandas 2.3 rounds memory that it never wrote, of which numpy warns at times.
    """
    return instants + pd.to_timedelta(minutes.astype("Int64"), unit="m")


def home_day(instants: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    """Return the New York day of each instant, as its midnight by the local clock."""
    return instants.dt.tz_localize("UTC").dt.tz_convert(HOME).dt.tz_localize(None).dt.normalize()


def home_midnight(days: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    """Return the instants at which New York days begin."""
    return days.dt.tz_localize(HOME).dt.tz_convert("UTC").dt.tz_localize(None)


def _offsets(instants: pd.Series[pd.Timestamp], zone: pd.Series[str]) -> Minutes:
    offsets = np.zeros(len(instants), dtype=np.int64)
    for name in zone.unique():
        here = (zone == name).to_numpy()
        local = instants[here].dt.tz_localize("UTC").dt.tz_convert(name).dt.tz_localize(None)
        offsets[here] = _minutes(local) - _minutes(instants[here])
    return offsets


def _minutes(instants: pd.Series[pd.Timestamp]) -> Minutes:
    return instants.to_numpy().astype("datetime64[m]").astype(np.int64)


def _plus(instants: pd.Series[pd.Timestamp], minutes: Minutes) -> pd.Series[pd.Timestamp]:
    return instants + pd.Series(pd.to_timedelta(minutes, unit="m"), index=instants.index)
