"""The project that the state layouts are compared on: cards of a table, and windows over their payments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.repo import HOUR_US, START_US, ViewTable

TABLE, MORE = "cards.parquet", "more_cards.parquet"
PAYMENTS, LABELS, ASKED = "payments.parquet", "labels.parquet", "asked.parquet"
N_KEYS = 20_000
_DAYS = 30
_TIME = pa.timestamp("us", tz="UTC")
_STORE = """project: bench
provider: local
registry: .skewless/registry.db
offline_store:
  type: duckdb
online_store: null
entity_key_serialization_version: 3
"""
_DEFINITIONS = """from datetime import timedelta

from feast import Entity, FeatureService, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

from skewless.definitions import aggregate, event_source, feature_view, windowed_view

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TYPES = {{"Float64": Float64, "Int64": Int64}}

card = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.INT64)
cards = feature_view(
    "cards",
    entities=[card],
    schema=[Field(name="entity_id", dtype=Int64), *(Field(name=n, dtype=TYPES[t]) for n, t in {features!r}.items())],
    source=FileSource(path="data/cards/*.parquet", timestamp_field="event_time"),
)
payments = event_source(
    "payments",
    history=FileSource(path="data/payments.parquet", timestamp_field="ts", created_timestamp_column="known_at"),
    columns={{"entity_id": "int64", "amount": "float64"}},
    scales={{"amount": 2}},
)
live = windowed_view(
    "live",
    entities=[card],
    source=payments,
    aggregations=[
        aggregate(function, "amount", days * DAY, name=f"{{function}}_{{days}}d")
        for days in (1, 7, 30)
        for function in ("count", "sum", "mean", "max")
    ],
)
both = FeatureService(name="both", features=[cards, live])
windows = FeatureService(name="windows", features=[live])
"""
_MODELS = """from datetime import timedelta

from skewless import Gate, LabelSource, ModelSpec, Split

MODELS = [
    ModelSpec(
        name="fraud",
        service="both",
        labels=LabelSource(path="data/labels.parquet", event_time="paid_at", known_time="known_at", label="fraud"),
        algorithm="lightgbm",
        split=Split(test=timedelta(days=5)),
        params={"num_leaves": 15, "learning_rate": 0.1},
        rounds=20,
        gate=Gate(floor=0.0, beat_baseline=False),  # labels are by chance
    )
]
"""


@dataclass(frozen=True, kw_only=True)
class LayoutShape:
    """Numbers of rows.

    Args:
        cards: of the first materialization; the second one adds a tenth.
        payments: events of the history.
        labels: rows of the training set, and of the dataset.
        predictions: rows that are predicted and replayed.
    """

    cards: int
    payments: int
    labels: int
    predictions: int

    @property
    def added(self) -> int:
        """Return the number of rows of the second materialization."""
        return self.cards // 10

    def write(self, repo: Path) -> None:
        """Write the definitions and the tables; the same for the same arguments."""
        (repo / "data" / "cards").mkdir(parents=True)
        table = ViewTable(name="cards", n_entities=self.cards, n_features=10)
        (repo / "feature_store.yaml").write_text(_STORE)
        (repo / "definitions.py").write_text(_DEFINITIONS.format(features=table.features))
        (repo / "models.py").write_text(_MODELS)
        table.write(repo / "data" / "cards")
        rng = np.random.default_rng(18)
        more = next(ViewTable(name="cards", n_entities=self.added, n_features=10, per_entity=1).chunks())
        later = pa.array(np.full(self.added, START_US + 2 * _DAYS * 24 * HOUR_US), _TIME)
        pq.write_table(more.set_column(1, "event_time", later), repo / "data" / MORE)
        pq.write_table(self._payments(rng), repo / "data" / PAYMENTS)
        pq.write_table(self._labels(rng, self.labels), repo / "data" / LABELS)
        asked = self._labels(rng, self.predictions).select(["entity_id"])
        pq.write_table(asked, repo / "data" / ASKED)

    def _payments(self, rng: np.random.Generator) -> pa.Table:
        times = START_US + np.sort(rng.integers(0, _DAYS * 24 * HOUR_US, self.payments))
        return pa.table(
            {
                "entity_id": self._ids(rng, self.payments),
                "amount": np.round(rng.gamma(2.0, 40.0, self.payments), 2),
                "ts": pa.array(times, _TIME),
                "known_at": pa.array(times + 1_000_000, _TIME),
            }
        )

    def _labels(self, rng: np.random.Generator, n: int) -> pa.Table:
        times = START_US + 2 * HOUR_US + np.sort(rng.integers(0, _DAYS * 24 * HOUR_US, n))
        return pa.table(
            {
                "entity_id": self._ids(rng, n),
                "paid_at": pa.array(times, _TIME),
                "known_at": pa.array(times + 1, _TIME),
                "fraud": (rng.random(n) < 0.2).astype(np.int64),
            }
        )

    def _ids(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.integers(0, min(N_KEYS, self.cards), n)
