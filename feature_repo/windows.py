"""Windows over the streams of departures and arrivals, for any key: what happened in the last hours and days."""

from __future__ import annotations

from datetime import timedelta
from types import FunctionType
from typing import cast

import lateness
from feast import Entity, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation

_SPANS = {
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
_KEYS = "carrier string, origin string, dest string, tailnum string"


def event_stream(name: str, delay: str, moment: str) -> PushSource:
    """Return a stream of events; those from before it lie in files that load.py writes.

    Args:
        delay: the column with the minutes of delay.
        moment: the column that says when it happened.
    """
    return PushSource(
        name=name,
        batch_source=FileSource(name=f"{name}_history", path=f"data/{name}/history", timestamp_field=moment),
        tags={
            "skewless.columns": f"{_KEYS}, {delay} float64, event_id int64",
            "skewless.event_id": "event_id",
            "skewless.dedupe": "1d",  # a sender that was not answered tries again, perhaps hours later
            f"skewless.scale.{delay}": "0",  # whole minutes
        },
    )


departures = event_stream("departures", "dep_delay", "departed_at")
arrivals = event_stream("arrivals", "arr_delay", "landed_at")


def departure_windows(name: str, keys: list[Entity], features: str) -> StreamFeatureView:
    """Return a view of departures; features are named ``FUNCTION_WINDOW``, as in ``late_3h``."""
    return _windows(name, keys, features, (departures, "dep_delay", "departed_at"), lateness.late_departure)


def arrival_windows(name: str, keys: list[Entity], features: str) -> StreamFeatureView:
    """Return a view of arrivals, likewise."""
    return _windows(name, keys, features, (arrivals, "arr_delay", "landed_at"), lateness.late_arrival)


def _windows(
    name: str, keys: list[Entity], features: str, stream: tuple[PushSource, str, str], udf: object
) -> StreamFeatureView:
    source, delay, moment = stream
    return StreamFeatureView(
        name=name,
        entities=keys,
        source=source,
        timestamp_field=moment,
        aggregations=[_aggregation(feature, delay) for feature in features.split()],
        mode="python",
        udf=cast("FunctionType", udf),
        tags={"skewless.inputs": delay, "skewless.derived": "late float64", "skewless.scale.late": "0"},
    )


def _aggregation(feature: str, delay: str) -> Aggregation:
    """Return one feature: ``late`` is the share of late flights, ``flights`` their number, others are of the delay."""
    function, _, span = feature.partition("_")
    if function == "late":
        return Aggregation(column="late", function="mean", time_window=_SPANS[span], name=feature)
    if function == "flights":
        return Aggregation(column=delay, function="count", time_window=_SPANS[span], name=feature)
    return Aggregation(column=delay, function=function, time_window=_SPANS[span], name=feature)
