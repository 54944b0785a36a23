"""Windows over the streams of departures and arrivals, for any key: what happened in the last hours and days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import lateness
from feast import Entity, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation

from skewless.definitions import AggregateFunction, ColumnFunction, ColumnType, aggregate, event_source, windowed_view

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
_SCHEDULE: dict[str, ColumnType] = {
    "sched_dep": "timestamp",
    "sched_dep_local": "int64",
    "sched_arr_local": "int64",
    "distance": "float64",
}
_NOTHING: Mapping[str, ColumnType] = {}


def event_stream(name: str, delay: str, time: str, more: Mapping[str, ColumnType] = _NOTHING) -> PushSource:
    """Return a stream of events, whose history is in files that `skewless_demo.flights` writes.

    Args:
        delay: the column with the minutes of delay.
        time: the column with the event time.
        more: further columns, which decisions read.
    """
    return event_source(
        name,
        history=FileSource(name=f"{name}_history", path=f"data/{name}/history", timestamp_field=time),
        columns={**_KEYS, **more, delay: "float64", "event_id": "int64"},
        event_id="event_id",
        dedupe=timedelta(days=1),  # a sender without a reply tries again, perhaps hours later
        scales={delay: 0},  # whole minutes
    )


departures = event_stream("departures", "dep_delay", "departed_at", _SCHEDULE)
arrivals = event_stream("arrivals", "arr_delay", "landed_at")


def departure_windows(name: str, keys: list[Entity], features: str) -> StreamFeatureView:
    """Return a view of departures; features are named ``FUNCTION_WINDOW``, as in ``late_3h``."""
    return _windows(name, keys, features, (departures, "dep_delay"), lateness.late_departure)


def arrival_windows(name: str, keys: list[Entity], features: str) -> StreamFeatureView:
    """Return a view of arrivals, likewise."""
    return _windows(name, keys, features, (arrivals, "arr_delay"), lateness.late_arrival)


def _windows(
    name: str, keys: list[Entity], features: str, stream: tuple[PushSource, str], transform: ColumnFunction
) -> StreamFeatureView:
    source, delay = stream
    return windowed_view(
        name,
        entities=keys,
        source=source,
        aggregations=[_aggregation(feature, delay) for feature in features.split()],
        transform=transform,
        inputs=[delay],
        derived={"late": "float64"},
        scales={"late": 0},
    )


def _aggregation(feature: str, delay: str) -> Aggregation:
    """Return one feature: ``late`` is the share of late flights, ``flights`` their number, others are of the delay."""
    name, _, span = feature.partition("_")
    if name == "late":
        return aggregate("mean", "late", _SPANS[span], name=feature)
    return aggregate(_FUNCTIONS[name], delay, _SPANS[span], name=feature)
