"""Features of lines and stations: Feast objects, some of them made by ``skewless.definitions``."""

from datetime import timedelta

import transforms
from feast import Entity, FeatureService, Field, FileSource
from feast.types import Bool, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from skewless.definitions import aggregate, event_source, feature_view, on_demand_view, request_source, windowed_view

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

line = Entity(name="line", join_keys=["line"], value_type=ValueType.STRING)
station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)

stations = feature_view(
    "stations",
    entities=[station],
    schema=[
        Field(name="station", dtype=String),
        Field(name="platforms", dtype=Int64),
        Field(name="works", dtype=Bool),
    ],
    source=FileSource(path="data/stations.parquet", timestamp_field="event_time"),
    freshness=3 * DAY,
)
arrivals = event_source(
    "arrivals",
    history=FileSource(
        path="data/arrivals.parquet", timestamp_field="arrived_at", created_timestamp_column="received_at"
    ),
    columns={"trip_id": "string", "line": "string", "station": "string", "delay": "float64"},
    event_id="trip_id",
    scales={"delay": 1},  # decimal digits that sums keep
)
line_now = windowed_view(
    "line_now",
    entities=[line],
    source=arrivals,
    aggregations=[
        aggregate("mean", "delay", HOUR, name="mean_delay_1h"),
        aggregate("max", "delay", HOUR, name="max_delay_1h"),
        aggregate("mean", "delay", 7 * DAY, name="mean_delay_7d", hop=DAY),  # its beginning moves in steps of a day
    ],
    freshness=2 * DAY,  # the sample ends yesterday; minutes for a real stream
)
trip = request_source("trip", schema=[Field(name="due", dtype=UnixTimestamp)])
trip_time = on_demand_view(
    "trip_time", sources=[trip], schema=[Field(name="hour", dtype=Float64)], transform=transforms.trip_time
)

delay_features = FeatureService(name="delay_features", features=[stations, line_now, trip_time])
