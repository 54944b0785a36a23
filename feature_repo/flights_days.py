"""Statistics of complete days: carriers, routes and planes, as known at midnight in New York."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from flights_times import home_day, home_midnight

WINDOWS = (1, 7, 28)

_SUMS = ["flights", "late", "arr_delay", "dep_delay"]
# More days than the longest window and the year together, so that windows of different keys do not overlap.
_STRIDE = 1000


def day_statistics(flights: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return one row per key and New York day with an arrival: the windows that end with that day.

    Columns: the keys; ``event_time``, the end of the day; and per window of k days
    ``flights_<k>d`` (int64), ``late_share_<k>d``, ``arr_delay_<k>d`` and ``dep_delay_<k>d``
    (means, minutes, float64). Sums are integers, so results do not depend on row order.

    Args:
        flights: rows with the keys, ``known_at`` (naive UTC, original year), ``late``,
            ``arr_delay`` and ``dep_delay``; rows that never arrived are skipped.
        keys: names of the key columns.
    """
    days = _sums_by_day(flights.dropna(subset=["known_at", *keys]), keys)
    result = days[keys].copy()
    result["event_time"] = home_midnight(days["day"] + pd.Timedelta(days=1))
    position = _positions(days, keys)
    totals = {name: np.concatenate([[0], days[name].to_numpy().cumsum()]) for name in _SUMS}
    for window in WINDOWS:
        first = np.searchsorted(position, position - window, side="right")
        sums = {name: total[1:] - total[first] for name, total in totals.items()}
        for name, values in _features(sums).items():
            result[f"{name}_{window}d"] = values
    return result.sort_values(["event_time", *keys], ignore_index=True)


def _sums_by_day(flights: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    day = home_day(flights["known_at"])
    table = flights[[*keys, "late", "arr_delay", "dep_delay"]].assign(day=day, flights=1)
    table = table.astype(dict.fromkeys(_SUMS, "int64"))
    return table.groupby([*keys, "day"], sort=True, as_index=False)[_SUMS].sum()


def _positions(days: pd.DataFrame, keys: list[str]) -> npt.NDArray[np.int64]:
    group = days.groupby(keys, sort=True).ngroup()
    number = (days["day"] - days["day"].min()).dt.days
    return np.asarray(group * _STRIDE + number, dtype=np.int64)


def _features(sums: dict[str, npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]]:
    count = sums["flights"]
    return {
        "flights": count,
        "late_share": sums["late"] / count,
        "arr_delay": sums["arr_delay"] / count,
        "dep_delay": sums["dep_delay"] / count,
    }
