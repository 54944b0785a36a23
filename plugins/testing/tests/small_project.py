"""A project with each kind of feature, and random data with late, repeated and missing values."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
CARDS = (1, 2, 2**53 + 1)
CONFIG = """\
project: small
provider: local
registry: .skewless/registry.db
offline_store:
  type: file
online_store: null
entity_key_serialization_version: 3
"""
FUNCTIONS = """\
import numpy as np


def large(events):
    amount = np.asarray(events["amount"], dtype=np.float64)
    return {"paid": amount > 0, "large": amount > 50}


def ratio(inputs):
    with np.errstate(all="ignore"):
        ratio = np.asarray(inputs["amount"], dtype=np.float64) / np.asarray(inputs["limit"], dtype=np.float64)
        hours = (inputs["asked_at"] - np.asarray(inputs["last_paid"], dtype=np.float64)) / 3.6e9
    return {"ratio": ratio, "hours": hours}
"""
DEFINITIONS = """\
from datetime import timedelta

import functions
from feast import Entity, FeatureService, Field, FileSource
from feast.types import Bool, Float32, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

from skewless.definitions import aggregate, event_source, feature_view, on_demand_view, request_source, windowed_view

HOUR = timedelta(hours=1)
card = Entity(name="card", join_keys=["card"], value_type=ValueType.INT64)
payments = event_source(
    "payments",
    history=FileSource(path="data/payments.parquet", timestamp_field="paid_at", created_timestamp_column="written"),
    columns={"card": "int64", "amount": "float64", "shop": "string", "payment": "string"},
    event_id="payment",
    scales={"amount": 2},
)
card_now = windowed_view(
    "card_now",
    entities=[card],
    source=payments,
    aggregations=[
        aggregate("count", "card", HOUR, name="payments_1h"),
        aggregate("sum", "amount", HOUR, name="spent_1h"),
        aggregate("std", "amount", 6 * HOUR, name="std_6h"),
        aggregate("mean", "large", 6 * HOUR, name="large_6h"),
        aggregate("max", "amount", 24 * HOUR, name="max_24h"),
        aggregate("last", "paid_at", 24 * HOUR, name="last_paid"),
        aggregate("count_distinct", "shop", 24 * HOUR, name="shops_24h"),
    ],
    transform=functions.large,
    inputs=["amount"],
    derived={"paid": "bool", "large": "bool"},
    where="paid",
)
card_facts = feature_view(
    "card_facts",
    entities=[card],
    schema=[
        Field(name="card", dtype=Int64),
        Field(name="limit", dtype=Float64),
        Field(name="country", dtype=String),
        Field(name="score", dtype=Float32),
        Field(name="active", dtype=Bool),
    ],
    ttl=timedelta(hours=12),
    source=FileSource(path="data/facts.parquet", timestamp_field="event_time", created_timestamp_column="created"),
    tombstone="gone",
)
plain_facts = feature_view(
    "plain_facts",
    entities=[card],
    schema=[Field(name="card", dtype=Int64), Field(name="level", dtype=Int64)],
    source=FileSource(path="data/levels.parquet", timestamp_field="event_time"),
    delay=HOUR,
)
request = request_source(
    "request",
    schema=[Field(name="amount", dtype=Float64), Field(name="asked_at", dtype=UnixTimestamp)],
    prediction_time="asked_at",
)
ratios = on_demand_view(
    "ratios",
    sources=[request, card_facts[["limit"]], card_now[["last_paid"]]],
    schema=[Field(name="ratio", dtype=Float64), Field(name="hours", dtype=Float64)],
    transform=functions.ratio,
)
service = FeatureService(name="all", features=[card_now, card_facts, plain_facts, ratios])
"""


def write_definitions(repo: Path) -> Path:
    """Write the project without data."""
    (repo / "data").mkdir(parents=True)
    texts = {"feature_store.yaml": CONFIG, "definitions.py": DEFINITIONS, "functions.py": FUNCTIONS}
    for name, text in texts.items():
        (repo / name).write_text(text)
    return repo


def random_tables(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return rows by file; ``payments`` are in the order in which they were written."""
    chance = random.Random(seed)
    payments = [_payment(chance, number) for number in range(120)]
    payments += [{**row, "written": row["written"] + chance.randrange(HOUR)} for row in chance.sample(payments, 15)]
    facts = [_fact(chance) for _ in range(40)]
    levels = [
        {"card": chance.choice(CARDS), "event_time": _moment(chance), "level": chance.choice([None, 1, 2**62])}
        for _ in range(20)
    ]
    return {
        "payments": sorted(payments, key=lambda row: int(row["written"])),
        "facts": facts,
        "levels": levels,
    }


def write_tables(repo: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Write the rows as Parquet files."""
    stamp, whole, text = pa.timestamp("us", tz="UTC"), pa.int64(), pa.string()
    kinds: dict[str, dict[str, Any]] = {
        "payments": {"card": whole, "amount": pa.float64(), "shop": text, "payment": text, "paid_at": stamp,
                     "written": stamp},
        "facts": {"card": whole, "limit": pa.float64(), "country": text, "score": pa.float32(), "active": pa.bool_(),
                  "event_time": stamp, "created": stamp, "gone": pa.bool_()},
        "levels": {"card": whole, "level": whole, "event_time": stamp},
    }  # fmt: skip
    for name, columns in kinds.items():
        arrays = {
            column: pa.array([row[column] for row in tables[name]], whole if kind is stamp else kind).cast(kind)
            for column, kind in columns.items()
        }
        pq.write_table(pa.table(arrays), repo / f"data/{name}.parquet")


def _moment(chance: random.Random) -> int:
    return NOW - DAY + chance.randrange(DAY // MINUTE) * MINUTE


def _payment(chance: random.Random, number: int) -> dict[str, Any]:
    paid_at = _moment(chance)
    return {
        "card": chance.choice(CARDS),
        "amount": chance.choice([None, -1.0, 0.125, 10.0, 99.99, chance.uniform(0, 100)]),
        "shop": chance.choice([None, "", "a", "日本"]),
        "payment": f"p{number}",
        "paid_at": paid_at,
        "written": paid_at + chance.choice([0, 0, SECOND, 20 * MINUTE, 3 * HOUR]),
    }


def _fact(chance: random.Random) -> dict[str, Any]:
    moment = _moment(chance)
    return {
        "card": chance.choice(CARDS),
        "event_time": moment,
        "created": moment + chance.choice([-HOUR, 0, MINUTE, 2 * HOUR]),
        "limit": chance.choice([None, 0.0, -0.0, 100.0, 1e300]),
        "country": chance.choice([None, "DE", ""]),
        "score": chance.choice([None, 0.5, 1.25]),
        "active": chance.choice([None, True, False]),
        "gone": chance.random() < 0.1,
    }
