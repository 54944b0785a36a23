"""Features of cards and shops: Feast objects, some of them made by ``skewless.definitions``."""

from datetime import timedelta

import transforms
from feast import Entity, FeatureService, Field, FileSource
from feast.types import Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from skewless.definitions import aggregate, event_source, feature_view, on_demand_view, request_source, windowed_view

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)

# Tables that a nightly job writes.
card_days = feature_view(
    "card_days",
    entities=[card],
    schema=[
        Field(name="card_id", dtype=Int64),
        Field(name="payments_7d", dtype=Int64),
        Field(name="mean_amount_7d", dtype=Float64),
        Field(name="country", dtype=String),
    ],
    source=FileSource(path="data/card_days.parquet", timestamp_field="event_time", created_timestamp_column="created"),
    ttl=30 * DAY,
    freshness=3 * DAY,
)
shop_risk = feature_view(
    "shop_risk",
    entities=[shop],
    schema=[Field(name="shop_id", dtype=String), Field(name="refund_share", dtype=Float64)],
    source=FileSource(path="data/shop_risk.parquet", timestamp_field="event_time"),
    delay=HOUR,
    freshness=3 * DAY,
)

# The stream of payments; the table has the events from before the stream.
payments = event_source(
    "payments",
    history=FileSource(path="data/payments.parquet", timestamp_field="paid_at", created_timestamp_column="received_at"),
    columns={"payment_id": "string", "card_id": "int64", "shop_id": "string", "amount": "float64"},
    event_id="payment_id",
    scales={"amount": 2},  # decimal digits that sums keep
)
card_now = windowed_view(
    "card_now",
    entities=[card],
    source=payments,
    aggregations=[
        aggregate("count", "card_id", HOUR, name="payments_1h"),
        aggregate("sum", "amount", HOUR, name="spent_1h"),
        aggregate("count_distinct", "shop_id", HOUR, name="shops_1h"),
        # The beginning of these windows moves in steps of a day: less exact, and cheaper.
        aggregate("count", "card_id", 3 * DAY, name="payments_3d", hop=DAY),
        aggregate("max", "amount", 3 * DAY, name="max_amount_3d", hop=DAY),
    ],
    freshness=2 * DAY,  # the sample ends yesterday; minutes for a real stream
)
shop_now = windowed_view(
    "shop_now",
    entities=[shop],
    source=payments,
    aggregations=[
        aggregate("count", "shop_id", 3 * DAY, name="payments_3d", hop=DAY),
        aggregate("mean", "amount", 3 * DAY, name="mean_amount_3d", hop=DAY),
    ],
    freshness=2 * DAY,
)

# Fields of a request, and features that are computed from them.
payment = request_source(
    "payment", schema=[Field(name="amount", dtype=Float64), Field(name="paid_at", dtype=UnixTimestamp)]
)
payment_time = on_demand_view(
    "payment_time",
    sources=[payment, card_days[["mean_amount_7d"]]],
    schema=[Field(name="hour", dtype=Float64), Field(name="amount_ratio", dtype=Float64)],
    transform=transforms.payment_time,
)

fraud_features = FeatureService(
    name="fraud_features", features=[card_days, shop_risk, card_now, shop_now, payment_time]
)
batch_features = FeatureService(name="batch_features", features=[card_days, shop_risk, payment_time])
