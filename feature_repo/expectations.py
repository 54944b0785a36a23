"""The expectations for each source and for the labels; ranges ignore nulls."""

from __future__ import annotations

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

_ORIGINS = ["EWR", "JFK", "LGA"]
_DAY_MINUTES = 24 * 60


def _between(column: str, low: float, high: float, mostly: float = 1.0) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, mostly=mostly)


def _present(*columns: str) -> list[Expectation]:
    return [gxe.ExpectColumnValuesToNotBeNull(column=column) for column in columns]


def _days(*keys: str) -> list[Expectation]:
    return [
        *_present(*keys, "event_time"),
        _between("flights_1d", 1, 5_000),
        _between("late_share_28d", 0, 1),
        _between("arr_delay_7d", -_DAY_MINUTES, 2 * _DAY_MINUTES),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="flights_28d", column_B="flights_7d", or_equal=True),
    ]


SUITES: dict[str, list[Expectation]] = {
    "weather": [
        *_present("event_time"),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=_ORIGINS),
        _between("temp", -40, 130),
        _between("humid", 0, 100),
        # The files have one gust of 1,048 miles per hour.
        _between("wind_speed", 0, 150, mostly=0.999),
        _between("visib", 0, 10),
        _between("pressure", 900, 1_100),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ],
    "plane_facts": [
        *_present("tailnum", "event_time"),
        gxe.ExpectColumnValuesToBeUnique(column="tailnum"),
        _between("year", 1940, 2100),
        _between("engines", 1, 4),
        _between("seats", 1, 900),
    ],
    "carrier_days": _days("carrier"),
    "route_days": _days("origin", "dest"),
    "plane_days": _days("tailnum"),
    "labels": [
        *_present("carrier", "sched_dep"),
        gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=_ORIGINS),
        gxe.ExpectColumnValuesToBeInSet(column="late", value_set=[0, 1]),
        gxe.ExpectColumnMeanToBeBetween(column="late", min_value=0.05, max_value=0.6),
        _between("sched_dep_local", 0, 2359),
        _between("sched_arr_local", 0, 2400),
        _between("distance", 1, 6_000),
    ],
}
