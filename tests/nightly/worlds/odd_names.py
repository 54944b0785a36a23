"""A made-up project with everything that names, keys and values may be: written over the template's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
DAY = 86_400_000_000
HUGE = 2**53
ORDERS, DAYS, ASKED = 40, 12, 2_000
CROPS = ["Kürbis", "日本の米", 'o\'crop "x"', "a|b{c}%d", "🌶️", "CROP", "crop"]
TIME = pa.timestamp("us", tz="UTC")

DEFINITIONS = r"""
from datetime import timedelta
from pathlib import Path

import transforms
from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, RequestSource
from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

order = Entity(name="order", join_keys=["order"], value_type=ValueType.INT64)
crop = Entity(name="crop", join_keys=["crop_y"], value_type=ValueType.STRING)

plots = FeatureView(
    name="plots",
    entities=[order, crop],
    ttl=timedelta(days=5),
    schema=[
        Field(name="order", dtype=Int64),
        Field(name="crop_y", dtype=String),
        Field(name="select", dtype=Int64),
        Field(name="the \"best\"", dtype=String),
        Field(name="group_y", dtype=Float32),
        Field(name="last seen", dtype=UnixTimestamp),
        Field(name="is_y", dtype=Bool),
        Field(name="table", dtype=Float64),
    ],
    source=FileSource(
        path="data/plots.parquet",
        timestamp_field="when",
        created_timestamp_column="end",
        field_mapping={"tafel": "table", "order id": "order"},
    ),
    tags={"skewless.tombstone": "drop"},
)
crops = FeatureView(
    name="crops",
    entities=[crop],
    schema=[
        Field(name="crop_y", dtype=String),
        Field(name="where", dtype=String),
        Field(name="limit", dtype=Int32),
    ],
    source=FileSource(path="data/crops", timestamp_field="from"),
    tags={"skewless.delay": "6h"},
)
asked = RequestSource(
    name="asked",
    schema=[
        Field(name="asked at", dtype=UnixTimestamp),
        Field(name="from", dtype=Float32),
        Field(name="union", dtype=String),
        Field(name="flag", dtype=Bool),
        Field(name="big", dtype=Int64),
    ],
)
values = OnDemandFeatureView(
    name="values",
    sources=[asked, plots[["last seen", "table"]]],
    schema=[
        Field(name="age_y", dtype=Float64),
        Field(name="parity", dtype=Int64),
        Field(name="mixed", dtype=Float64),
        Field(name="union_y", dtype=String),
    ],
    mode="python",
    udf=transforms.values,
    udf_string=Path(transforms.__file__).read_text(encoding="utf-8"),
)
numbers = FeatureService(
    name="numbers", features=[plots[["select", "group_y", "last seen", "is_y", "table"]], crops[["limit"]]]
)
everything = FeatureService(name="everything", features=[values, crops, plots])
"""

TRANSFORMS = """
import numpy as np


def values(inputs):
    if isinstance(inputs["big"], list):  # Feast's own tools pass lists, and moments as datetimes
        return {name: column.tolist() for name, column in values(_arrays(inputs)).items()}
    union = np.empty(len(inputs["union"]), dtype=object)
    union[:] = [None if word is None else word[:1] for word in inputs["union"]]
    with np.errstate(all="ignore"):
        return {
            "age_y": inputs["asked at"].astype(np.float64) - inputs["last seen"],
            "parity": inputs["big"] % 3,
            "mixed": inputs["from"] * np.where(inputs["flag"], 1.0, -1.0) + inputs["table"],
            "union_y": union,
        }


def _arrays(inputs):
    moments = {name: [int(item.timestamp() * 1e6) for item in inputs[name]] for name in ("asked at", "last seen")}
    return {name: np.asarray(column) for name, column in (inputs | moments).items()}
"""

MODELS = """
from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.spec import Gate, ModelSpec, Split

LABELS = {"path": "data/asked.parquet", "event_time": "asked at", "known_time": "known"}
LABELS |= {"columns": {"order": "order id"}}
SPLIT = Split(test=timedelta(days=2), embargo=timedelta(hours=12))

MODELS = [
    ModelSpec(
        name="yield-xgb",
        service="numbers",
        labels=LabelSource(label="yield", weight="weight", **LABELS),
        algorithm="xgboost",
        task="regression",
        horizon=timedelta(hours=1),
        split=SPLIT,
        rounds=20,
        params={"max_depth": 4},
        gate=Gate(metric="rmse"),
        log="required",
    ),
    ModelSpec(
        name="good",
        service="everything",
        labels=LabelSource(label="good", **LABELS),
        algorithm="lightgbm",
        split=SPLIT,
        rounds=20,
        params={"min_data_in_leaf": 10, "min_data_per_group": 5},
        class_weight=2.0,
        missing="refuse",
        retrain="0 4 * * 0",
    ),
]
"""

EXPECTATIONS = """
import great_expectations.expectations as gxe

SUITES = {
    "plots": [gxe.ExpectColumnValuesToNotBeNull(column="order")],
    "labels:good": [gxe.ExpectColumnValuesToBeInSet(column="good", value_set=[0, 1])],
}
"""


def change(repo: Path) -> None:
    """Turn the template's project into this one."""
    for name, text in (
        ("definitions", DEFINITIONS),
        ("transforms", TRANSFORMS),
        ("models", MODELS),
        ("expectations", EXPECTATIONS),
    ):
        (repo / f"{name}.py").write_text(text, encoding="utf-8")
    for path in (repo / "data").iterdir():
        path.unlink()
    rng = np.random.default_rng(5)
    (repo / "data/crops").mkdir()
    pq.write_table(_crops(rng), repo / "data/crops/all.parquet")
    pq.write_table(_plots(rng), repo / "data/plots.parquet")
    pq.write_table(_asked(rng), repo / "data/asked.parquet")


def _times(moments: Any) -> pa.Array:  # noqa: ANN401 - integers of any shape
    return pa.array(np.asarray(moments, dtype=np.int64), pa.int64()).cast(TIME)


def _orders(n: int) -> list[int]:
    return [-1, 0, -(2**63), 2**63 - 1, *range(HUGE + 1, HUGE + n - 3)]


def _plots(rng: np.random.Generator) -> pa.Table:
    orders = np.array(_orders(ORDERS))
    order, day = (part.ravel() for part in np.meshgrid(np.arange(ORDERS), np.arange(DAYS)))
    n = len(order)
    when = NOW - (DAYS - day) * DAY + order * 1_000_003
    created = [None if i % 11 == 0 else int(w) + 60_000_000 for i, w in enumerate(when)]
    seen = [None if i % 9 == 0 else int(w) - 977 for i, w in enumerate(when)]
    words = np.array(["gut", "très bon", "良い", "", None], dtype=object)
    return pa.table(
        {
            "order id": pa.array(orders[order].tolist(), pa.int64()),
            "crop_y": [CROPS[i % len(CROPS)] for i in order],
            "when": _times(when),
            "end": pa.array(created, pa.int64()).cast(TIME),
            "drop": pa.array([bool(i % 17 == 0) if i % 5 else None for i in range(n)]),
            "select": pa.array([None if i % 7 == 0 else 2**62 + 2 * int(i) + 1 for i in range(n)], pa.int64()),
            'the "best"': pa.array(words[rng.integers(0, 5, n)].tolist(), pa.string()),
            # Of all that is known of a plot, this alone tells something of its yield.
            "group_y": pa.array(
                (rng.normal(size=n) + 3 * (order % 3 == 0)).astype(np.float32), mask=rng.random(n) < 0.2
            ),
            "last seen": pa.array(seen, pa.int64()).cast(TIME),
            "is_y": pa.array((rng.random(n) < 0.5).tolist(), pa.bool_()),
            "tafel": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.1),
        }
    )


def _crops(rng: np.random.Generator) -> pa.Table:
    crop, day = (part.ravel() for part in np.meshgrid(np.arange(len(CROPS)), np.arange(DAYS)))
    return pa.table(
        {
            "crop_y": [CROPS[i] for i in crop],
            "from": _times(NOW - (DAYS - day) * DAY),
            "where": pa.array([None if i % 6 == 0 else f"ort-{i % 4}" for i in range(len(crop))], pa.string()),
            "limit": pa.array(rng.integers(-(2**31), 2**31, len(crop)), pa.int32()),
        }
    )


def _asked(rng: np.random.Generator) -> pa.Table:
    which = rng.integers(0, ORDERS, ASKED)
    at = np.sort(NOW - DAYS * DAY + rng.integers(0, DAYS * DAY, ASKED))
    signal = np.where(which % 3 == 0, 1.0, -1.0) + rng.normal(size=ASKED)
    union = np.array(["ja", "Über", "nein", None, ""], dtype=object)[rng.integers(0, 5, ASKED)]
    return pa.table(
        {
            "order id": pa.array([_orders(ORDERS)[i] for i in which], pa.int64()),
            "crop_y": [CROPS[i % len(CROPS)] for i in which],
            "asked at": _times(at),
            "from": pa.array(rng.normal(size=ASKED).astype(np.float32), mask=rng.random(ASKED) < 0.1),
            "union": pa.array(union.tolist(), pa.string()),
            "flag": pa.array((rng.random(ASKED) < 0.5).tolist(), pa.bool_()),
            "big": pa.array((which + HUGE + 1).tolist(), pa.int64()),
            "known": _times(at + 3_600_000_000),
            "yield": signal,
            "good": (signal > 0).astype(np.int64),
            "weight": rng.uniform(0.5, 2.0, ASKED),
        }
    )
