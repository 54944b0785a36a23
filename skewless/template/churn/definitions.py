"""Features of customers: Feast objects, some of them made by ``skewless.definitions``."""

from datetime import timedelta

import transforms
from feast import Entity, FeatureService, Field, FileSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from skewless.definitions import feature_view, on_demand_view

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

contract = feature_view(
    "contract",
    entities=[customer],
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="plan", dtype=String),
        Field(name="monthly_fee", dtype=Float64),
    ],
    source=FileSource(path="data/contracts.parquet", timestamp_field="event_time"),
)
usage = feature_view(
    "usage",
    entities=[customer],
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="hours_7d", dtype=Float64),
        Field(name="tickets_30d", dtype=Int64),
    ],
    source=FileSource(path="data/usage.parquet", timestamp_field="event_time"),
    ttl=timedelta(days=14),
    delay=timedelta(hours=2),
    freshness=timedelta(days=3),
)
value = on_demand_view(
    "value",
    sources=[contract[["monthly_fee"]], usage[["hours_7d"]]],
    schema=[Field(name="fee_per_hour", dtype=Float64)],
    transform=transforms.value,
)

churn_features = FeatureService(name="churn_features", features=[contract, usage, value])
