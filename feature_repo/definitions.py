"""The Feast objects of the flights: entities, views, windows over streams, the request and the services."""

from __future__ import annotations

from datetime import timedelta

import transforms
from feast import Entity, FeatureService, Field, FileSource
from feast.types import Float64, Int64, PrimitiveFeastType, String, UnixTimestamp
from feast.value_type import ValueType
from windows import arrival_windows, departure_windows

from skewless.definitions import feature_view, on_demand_view, request_source

# Statistics look back over 28 days at most; a week of slack for planes that fly seldom.
DAYS_TTL = timedelta(days=35)

carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING, description="airline code")
origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING, description="airport code")
dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING, description="airport code")
plane = Entity(name="plane", join_keys=["tailnum"], value_type=ValueType.STRING, description="tail number")


def source(name: str) -> FileSource:
    """Return the source of a table that `skewless_demo.flights` writes."""
    return FileSource(name=name, path=f"data/{name}", timestamp_field="event_time")


def fields(dtype: PrimitiveFeastType, names: str) -> list[Field]:
    """Return fields of one type."""
    return [Field(name=name, dtype=dtype) for name in names.split()]


def window_fields() -> list[Field]:
    """Return the fields of the statistics of finished days: arrivals in the last 1, 7 and 28 days."""
    return [
        Field(name=f"{name}_{days}d", dtype=Int64 if name == "flights" else Float64)
        for days in (1, 7, 28)
        for name in ("flights", "late_share", "arr_delay", "dep_delay")
    ]


plane_facts = feature_view(
    "plane_facts",
    entities=[plane],
    ttl=timedelta(0),
    schema=[
        *fields(String, "tailnum"),
        *fields(Int64, "year"),
        *fields(String, "manufacturer"),
        *fields(Int64, "engines seats"),
        *fields(String, "engine type"),
    ],
    source=source("planes"),
)

weather = feature_view(
    "weather",
    entities=[origin],
    ttl=timedelta(hours=6),
    schema=[
        *fields(String, "origin"),
        *fields(Float64, "temp dewp humid wind_dir wind_speed wind_gust precip pressure visib"),
    ],
    source=source("weather"),
    delay=timedelta(hours=1),
    freshness=timedelta(hours=3),
)

carrier_days = feature_view(
    "carrier_days",
    entities=[carrier],
    ttl=DAYS_TTL,
    schema=[*fields(String, "carrier"), *window_fields()],
    source=source("carrier_days"),
    delay=timedelta(hours=2),
    freshness=timedelta(days=2),
)

route_days = feature_view(
    "route_days",
    entities=[origin, dest],
    ttl=DAYS_TTL,
    schema=[*fields(String, "origin dest"), *window_fields()],
    source=source("route_days"),
    delay=timedelta(hours=2),
)

plane_days = feature_view(
    "plane_days",
    entities=[plane],
    ttl=DAYS_TTL,
    schema=[*fields(String, "tailnum"), *window_fields()],
    source=source("plane_days"),
    delay=timedelta(hours=2),
)

# The current delays. Features are named FUNCTION_WINDOW; late is the share of those more than 15 minutes late.
carrier_out = departure_windows("carrier_out", [carrier], "flights_1h mean_1h mean_3h late_1h late_3h late_24h late_7d")
airport_out = departure_windows(
    "airport_out", [origin], "flights_1h mean_1h mean_3h std_3h late_1h late_3h late_24h late_7d"
)
route_out = departure_windows("route_out", [origin, dest], "late_3h late_24h mean_24h last_24h late_7d")
plane_out = departure_windows("plane_out", [plane], "flights_24h last_24h mean_24h late_7d")
carrier_in = arrival_windows("carrier_in", [carrier], "mean_1h mean_3h late_3h mean_24h")
# Arrivals are all elsewhere: the delays at the airport of destination.
airport_in = arrival_windows("airport_in", [dest], "mean_3h late_3h mean_24h max_3h")
route_in = arrival_windows("route_in", [origin, dest], "mean_3h mean_24h late_24h last_24h mean_7d")
plane_in = arrival_windows("plane_in", [plane], "last_3h last_24h mean_24h max_24h late_7d")

flight = request_source(
    "flight",
    schema=[
        *fields(UnixTimestamp, "sched_dep"),
        *fields(Int64, "sched_dep_local sched_arr_local"),
        *fields(Float64, "distance"),
    ],
)

pushback = request_source("pushback", schema=fields(Float64, "dep_delay"))

departure = on_demand_view(
    "departure",
    sources=[flight, weather[["temp", "dewp"]]],
    transform=transforms.departure,
    schema=fields(Float64, "local_hour local_minute weekday arrival_minute clock_minutes miles dew_spread"),
)

departed = on_demand_view(
    "departed",
    sources=[pushback],
    transform=transforms.departed,
    schema=fields(Float64, "minutes_late"),
)

flight_delay = FeatureService(
    name="flight_delay",
    features=[departure, weather, carrier_days, route_days, plane_days, plane_facts],
)

flight_delay_live = FeatureService(
    name="flight_delay_live",
    features=[
        *(departure, weather, carrier_days, route_days, plane_days, plane_facts),
        *(carrier_out, airport_out, route_out, plane_out),
        *(carrier_in, airport_in, route_in, plane_in),
    ],
)

# Features of the moment of departure; the windows have the departures before it.
arrival_delay = FeatureService(
    name="arrival_delay",
    features=[
        *(departed, departure, weather, carrier_days, route_days, plane_facts),
        *(carrier_out, airport_out, route_out),
    ],
)
