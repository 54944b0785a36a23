"""The project of ``serving_kinds``: cards, and shops as numbers, as texts, with a transform, or as windows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS = "of numbers"
KINDS = (NUMBERS, "with texts", "with a transform", "with windows")
_N_SHOWN, _N_TEXTS, _EVENTS_PER_SHOP, _DAYS = 20, 2, 40, 8
_DAY = 86_400_000_000
_TIME = pa.timestamp("us", tz="UTC")
_STORE = """project: bench
provider: local
registry: .skewless/registry.db
offline_store:
  type: duckdb
online_store: null
entity_key_serialization_version: 3
"""
_TRANSFORM = """import numpy as np


def compare(inputs):
    amount = inputs["amount"]
    return {"ratio": amount / (1.0 + np.abs(inputs["cards_00"])), "gap": amount - inputs["shops_00"]}
"""
_DEFINITIONS = """from datetime import timedelta

from compare import compare
from feast import Entity, FeatureService, Field, FileSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from skewless.definitions import aggregate, event_source, feature_view, on_demand_view, request_source, windowed_view

HOUR = timedelta(hours=1)
card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)


def view(name, entity, texts=0):
    kinds = [String] * texts + [Float64] * (20 - texts)
    return feature_view(
        name,
        entities=[entity],
        schema=[
            Field(name=f"{entity.name}_id", dtype=Int64),
            *(Field(name=f"{name}_{i:02}", dtype=kind) for i, kind in enumerate(kinds)),
        ],
        source=FileSource(path=f"data/{name}.parquet", timestamp_field="event_time"),
    )


cards, shops, texts = view("cards", card), view("shops", shop), view("texts", shop, 2)
asked = request_source("asked", schema=[Field(name="amount", dtype=Float64)])
compared = on_demand_view(
    "compared",
    sources=[asked, cards[["cards_00"]], shops[["shops_00"]]],
    schema=[Field(name="ratio", dtype=Float64), Field(name="gap", dtype=Float64)],
    transform=compare,
)
# WINDOWS
payments = event_source(
    "payments",
    history=FileSource(path="data/payments.parquet", timestamp_field="ts"),
    columns={"shop_id": "int64", "amount": "float64"},
    scales={"amount": 2},
)
live = windowed_view(
    "live",
    entities=[shop],
    source=payments,
    aggregations=[
        aggregate(function, "amount", hours * HOUR, name=f"{function}_{hours}h")
        for hours in (1, 3, 24, 72, 168)
        for function in ("count", "sum", "mean", "max")
    ],
)
"""
_SERVICES = {
    KINDS[0]: "[cards, shops]",
    KINDS[1]: "[cards, texts]",
    KINDS[2]: '[cards, shops[[f"shops_{i:02}" for i in range(18)]], compared]',
    KINDS[3]: "[cards, live]",
}
_MODELS = """from datetime import timedelta

from skewless import Gate, LabelSource, ModelSpec, Split

MODELS = [
    ModelSpec(
        name=name,
        service=name,
        labels=LabelSource(path="data/labels.parquet", event_time="paid_at", known_time="known_at", label="fraud"),
        algorithm="lightgbm",
        split=Split(test=timedelta(hours=2)),
        params={{"num_leaves": 63, "learning_rate": 0.05, "min_data_in_leaf": 20}},
        rounds={rounds},
        gate=Gate(floor=0.0, beat_baseline=False),
    )
    for name in {names!r}
]
"""


def write_project(repo: Path, n_cards: int, n_trees: int, kinds: Sequence[str]) -> Path:
    """Write definitions and tables for some kinds of services; model i has the i-th kind of ``KINDS``; return the repo.

    Args:
        n_cards: number of cards, and of shops.
    """
    (repo / "data").mkdir(parents=True)
    now = time.time_ns() // 1_000
    rng = np.random.default_rng(3)
    for name, key in (("cards", "card_id"), ("shops", "shop_id"), ("texts", "shop_id")):
        columns: dict[str, object] = {f"{name}_{i:02}": rng.normal(size=n_cards) for i in range(_N_SHOWN)}
        if name == "texts":
            words = rng.integers(0, 50, (_N_TEXTS, n_cards))
            columns |= {f"texts_{i:02}": pa.array([f"word {word}" for word in words[i]]) for i in range(_N_TEXTS)}
        times = pa.array(np.full(n_cards, now - _DAYS * _DAY), _TIME)
        pq.write_table(
            pa.table({key: np.arange(n_cards), "event_time": times, **columns}), repo / f"data/{name}.parquet"
        )
    n = n_cards * _EVENTS_PER_SHOP
    paid = np.sort(now - rng.integers(0, _DAYS * _DAY, n))
    payments = {"shop_id": rng.integers(0, n_cards, n), "amount": np.round(rng.gamma(2.0, 40.0, n), 2)}
    pq.write_table(pa.table({**payments, "ts": pa.array(paid, _TIME)}), repo / "data/payments.parquet")
    labels = np.sort(now - rng.integers(0, 10 * _DAY // 24, 20_000))
    pq.write_table(
        pa.table(
            {
                "card_id": rng.integers(0, n_cards, len(labels)),
                "shop_id": rng.integers(0, n_cards, len(labels)),
                "amount": rng.gamma(2.0, 40.0, len(labels)),
                "paid_at": pa.array(labels, _TIME),
                "known_at": pa.array(labels + 1, _TIME),
                "fraud": (rng.random(len(labels)) < 0.3).astype(np.int64),
            }
        ),
        repo / "data/labels.parquet",
    )
    (repo / "feature_store.yaml").write_text(_STORE)
    (repo / "compare.py").write_text(_TRANSFORM)
    (repo / ".feastignore").write_text("compare.py\nmodels.py\n")
    names = [f"m{KINDS.index(kind)}" for kind in kinds]
    services = [
        f'{name} = FeatureService(name="{name}", features={_SERVICES[kind]})'
        for name, kind in zip(names, kinds, strict=True)
    ]
    head, rest = _DEFINITIONS.split("# WINDOWS\n")
    definitions = head + (rest if KINDS[3] in kinds else "")
    (repo / "definitions.py").write_text("\n".join([definitions, *services, ""]))
    (repo / "models.py").write_text(_MODELS.format(rounds=n_trees, names=names))
    return repo
