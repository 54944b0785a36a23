"""Windows over the streams of departures and arrivals, for any key."""

from __future__ import annotations

from datetime import timedelta

import lateness
from feast import Entity, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation

from skewless.definitions import AggregateFunction, ColumnFunction, ColumnType

_SPANS = {
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
_FUNCTIONS: dict[str, AggregateFunction] = {
    "flights": "count",
    "mean": "mean",
    "std": "std",
    "max": "max",
    "last": "last",
}
_KEYS: dict[str, ColumnType] = {"carrier": "string", "origin": "string", "dest": "string", "tailnum": "string"}


def event_stream(name: str, delay: str, time: str) -> PushSource:
    """Return a stream of events, with the history files of load.py.

    Args:
        delay: the column with the minutes of delay.
        time: the column of the event time.
    """
    return PushSource(
        name=name,
        batch_source=FileSource(name=f"{name}_history", path=f"data/{name}/history", timestamp_field=time),
        tags={
            "skewless.columns": f"{_KEYS}, {delay} float64, event_id int64",
            "skewless.event_id": "event_id",
            "skewless.dedupe": "1d",  # a sender without a reply may send again hours later
            f"skewless.scale.{delay}": "0",  # integer minutes
        },
    )


departures = event_stream("departures", "dep_delay", "departed_at")
arrivals = event_stream("arrivals", "arr_delay", "landed_at")


def departure_windows(name: str, keys: list[Entity], features: str) -> StreamFeatureView:
    """Return a view of departures; features are named ``FUNCTION_WINDOW``, as in ``late_3h``."""
    return _windows(name, keys, features, (departures, "dep_delay"), lateness.late_departure)


def arrival_windows(name: str, keys: list[Entity], features: str) -> StreamFeatureView:
    """Return a view of arrivals; features are named as in ``departure_windows``."""
    return _windows(name, keys, features, (arrivals, "arr_delay", "landed_at"), lateness.late_arrival)


def _windows(
    name: str, keys: list[Entity], features: str, stream: tuple[PushSource, str], transform: ColumnFunction
) -> StreamFeatureView:
    source, delay, time = stream
    return StreamFeatureView(
        name=name,
        entities=keys,
        source=source,
        timestamp_field=time,
        aggregations=[_aggregation(feature, delay) for feature in features.split()],
        transform=transform,
        inputs=[delay],
        derived={"late": "float64"},
        scales={"late": 0},
    )


def _aggregation(feature: str, delay: str) -> Aggregation:
    """Return one feature: ``late`` is the share of late flights, ``flights`` their number; others are of the delay."""
    function, _, span = feature.partition("_")
    if function == "late":
        return Aggregation(column="late", function="mean", time_window=_SPANS[span], name=feature)
    if function == "flights":
        return Aggregation(column=delay, function="count", time_window=_SPANS[span], name=feature)
    return Aggregation(column=delay, function=function, time_window=_SPANS[span], name=feature)
