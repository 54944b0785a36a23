"""Entities, feature views and a feature service for cards and shops, as plain Feast objects."""

from datetime import timedelta
from pathlib import Path

import transforms
from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, RequestSource
from feast.types import Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)

card_days = FeatureView(
    name="card_days",
    entities=[card],
    ttl=timedelta(days=30),
    schema=[
        Field(name="card_id", dtype=Int64),
        Field(name="payments_7d", dtype=Int64),
        Field(name="mean_amount_7d", dtype=Float64),
        Field(name="country", dtype=String),
    ],
    source=FileSource(path="data/card_days.parquet", timestamp_field="event_time", created_timestamp_column="created"),
    tags={"skewless.freshness": "2d"},
)

shop_risk = FeatureView(
    name="shop_risk",
    entities=[shop],
    schema=[Field(name="shop_id", dtype=String), Field(name="refund_share", dtype=Float64)],
    source=FileSource(path="data/shop_risk.parquet", timestamp_field="event_time"),
    tags={"skewless.delay": "1h"},
)

payment = RequestSource(
    name="payment", schema=[Field(name="amount", dtype=Float64), Field(name="paid_at", dtype=UnixTimestamp)]
)

payment_time = OnDemandFeatureView(
    name="payment_time",
    sources=[payment, card_days],
    schema=[Field(name="hour", dtype=Float64), Field(name="amount_ratio", dtype=Float64)],
    mode="python",
    udf=transforms.payment_time,  # type: ignore[arg-type]  # Feast expects the type of a function that def creates
    udf_string=Path(transforms.__file__).read_text(encoding="utf-8"),
)

fraud_features = FeatureService(name="fraud_features", features=[card_days, shop_risk, payment_time])
