"""Request-time transforms: the result of a row depends only on that row.

The module imports only numpy, because model packages contain its source.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.int64] | npt.NDArray[np.float64] | list[object]
Integers = npt.NDArray[np.int64]
Known = npt.NDArray[np.bool_]
Real = npt.NDArray[np.float64]

HOUR = 60
DAY = 24 * HOUR
MINUTE_US = 60_000_000
# A time further from 1970 than this (about 12,000 years) is not a time of a flight.
FARTHEST_US = 2**58


def departure(inputs: dict[str, Column]) -> dict[str, Real]:
    """Return features of the schedule of a departure, as float64 columns; NaN if an input is not a valid time.

    ``local_hour`` and ``local_minute`` (of the day) are by the origin's clock, ``weekday`` is 0 on
    Monday, ``arrival_minute`` is by the destination's clock, ``clock_minutes`` is from the one to
    the other (0 to 1439, zones ignored), ``miles`` is the distance and ``dew_spread`` how far the
    air is from fog, in degrees.

    Args:
        inputs: columns of one length. ``sched_dep``: microseconds since the epoch, UTC;
            ``sched_dep_local``, ``sched_arr_local``: clock times such as 1745; ``distance``: miles;
            ``temp``, ``dewp``: degrees. For lists, as Feast passes them, it returns lists.
    """
    minute, minute_known = _minute_of_day(inputs["sched_dep_local"])
    arrival, arrival_known = _minute_of_day(inputs["sched_arr_local"])
    instant, instant_known = _integers(inputs["sched_dep"], FARTHEST_US)
    outputs = {
        "local_hour": _real(minute // HOUR, minute_known),
        "local_minute": _real(minute, minute_known),
        "weekday": _real(_weekday(instant, minute), instant_known & minute_known),
        "arrival_minute": _real(arrival, arrival_known),
        "clock_minutes": _real((arrival - minute) % DAY, minute_known & arrival_known),
        "miles": np.array(inputs["distance"], dtype=np.float64),
        "dew_spread": _difference(inputs["temp"], inputs["dewp"]),
    }
    if isinstance(inputs["sched_dep"], list):
        return {name: column.tolist() for name, column in outputs.items()}
    return outputs


def departed(inputs: dict[str, Column]) -> dict[str, Real]:
    """Return by how many minutes a flight left late, NaN if it is unknown; for lists, as Feast passes them, lists."""
    minutes = np.array(inputs["dep_delay"], dtype=np.float64)
    return {"minutes_late": minutes.tolist() if isinstance(inputs["dep_delay"], list) else minutes}


def _weekday(instant: Integers, minute: Integers) -> Integers:
    # The offset is the one within half a day that turns the UTC clock into the local one: no zone
    # database, whose rules of another year would not fit dates that were moved by whole weeks.
    utc = instant // MINUTE_US
    offset = (minute - utc + DAY // 2) % DAY - DAY // 2
    return ((utc + offset) // DAY + 3) % 7


def _minute_of_day(clock: Column) -> tuple[Integers, Known]:
    value, is_valid = _integers(clock, 2400)
    minute = value // 100 * HOUR + value % 100
    return minute % DAY, is_valid & (value >= 0) & (value % 100 < HOUR)


def _integers(column: Column, bound: int) -> tuple[Integers, Known]:
    values = np.asarray(_numbers(column) if isinstance(column, list) else column)
    is_valid = (values >= -bound) & (values <= bound)
    return np.where(is_valid, values, 0).astype(np.int64), is_valid


def _real(values: Integers, is_valid: Known) -> Real:
    return np.where(is_valid, values, np.nan)


def _difference(left: Column, right: Column) -> Real:
    with np.errstate(all="ignore"):
        return np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)


def _numbers(column: list[object]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    if any(hasattr(value, "utcoffset") for value in column):
        column = [None if value is None else _microseconds(value) for value in column]
    return np.array(column, dtype=np.float64 if None in column else None)


def _microseconds(time: object) -> int:
    # Without the zone, which numpy does not accept; all times of Feast are in UTC.
    naive = str(time).removesuffix("+00:00")
    return int(np.datetime64(naive, "us").astype(np.int64))
