"""The project that is changed while it serves: payments by cards, windows over them, and a model that reads these.

The oracle of the windows is here too: plain Python integers, no code of the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

MODEL, SOURCE, VIEW = "fraud", "payments", "card_now"
Ints = npt.NDArray[np.int64]

_MINUTE = 60_000_000
_HOUR, _DAY = 60 * _MINUTE, 1_440 * _MINUTE
_HOPS = {_HOUR: 5 * _MINUTE, _DAY: _HOUR, 7 * _DAY: _HOUR}
_NAMES = {_HOUR: "1h", _DAY: "1d", 7 * _DAY: "7d"}
_TIME = pa.timestamp("us", tz="UTC")
_SKEW = 1.05
_RISKY = 4  # every fourth card pays more, and is fraud more often
_CONFIG = """project: bench
provider: local
registry: .skewless/registry.db
offline_store:
  type: file
online_store: null
entity_key_serialization_version: 3
"""
_DEFINITIONS = """from datetime import timedelta

from feast import Entity, FeatureService, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.value_type import ValueType

WINDOWS = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7)}
card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
payments = PushSource(
    name="payments",
    batch_source=FileSource(path="data/payments.parquet", timestamp_field="paid_at"),
    tags={
        "skewless.columns": "card_id int64, amount float64, payment_id string",
        "skewless.event_id": "payment_id",
        "skewless.scale.amount": "2",
    },
)
card_now = StreamFeatureView(
    name="card_now",
    entities=[card],
    source=payments,
    timestamp_field="paid_at",
    aggregations=[
        *(
            Aggregation(column="amount", function=function, time_window=length, name=f"{function}_{window}")
            for window, length in WINDOWS.items()
            for function in ("count", "sum", "mean")
        ),
        # one more
    ],
)
service = FeatureService(name="all", features=[card_now])
"""
_SLOT = "# one more"
_ADDED = 'Aggregation(column="amount", function="max", time_window=WINDOWS["1d"], name="max_1d"),'
_MODELS = """from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.spec import Gate, ModelSpec, Split

MODELS = [
    ModelSpec(
        name="fraud",
        service="all",
        labels=LabelSource(path="data/labels.parquet", event_time="asked_at", known_time="known_at", label="fraud"),
        algorithm="lightgbm",
        split=Split(test=timedelta(days=3)),
        params={{"num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 20}},
        rounds={rounds},
        gate=Gate(metric="auc", floor=0.0, tolerance=1.0),
    )
]
"""


@dataclass(frozen=True, kw_only=True)
class Payments:
    """Payments in order of time.

    Args:
        card, cents, paid_at: of each payment; times in microseconds.
    """

    card: Ints
    cents: Ints
    paid_at: Ints

    def features(self, card: int, t: int) -> dict[str, float | None]:
        """Return what a card's windows hold at a time, by feature."""
        own = self.card == card
        cents, paid_at = self.cents[own], self.paid_at[own]
        features: dict[str, float | None] = {}
        for length, hop in _HOPS.items():
            inside = [int(each) for each in cents[(paid_at >= (t - length) // hop * hop) & (paid_at < t)]]
            count, total = len(inside), sum(inside)
            features[f"count_{_NAMES[length]}"] = float(count)
            features[f"sum_{_NAMES[length]}"] = total / 100 if count else None
            features[f"mean_{_NAMES[length]}"] = total / (100 * count) if count else None
            if length == _DAY:
                features["max_1d"] = max(inside) / 100 if count else None
        return {f"{VIEW}__{name}": value for name, value in features.items()}

    def and_then(self, more: Payments) -> Payments:
        """Return these payments with others behind them."""
        pairs = [(getattr(self, name), getattr(more, name)) for name in ("card", "cents", "paid_at")]
        return Payments(**dict(zip(("card", "cents", "paid_at"), map(np.concatenate, pairs), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large the project is.

    Args:
        n_payments: of the history.
        rounds: trees of the model.
    """

    n_payments: int
    n_cards: int
    n_labels: int
    rounds: int
    days: int = 30

    def history(self, now_us: int) -> Payments:
        """Return the payments of the days before a moment."""
        rng = np.random.default_rng(11)
        card = self.cards(rng, self.n_payments)
        cents = np.round(rng.gamma(2.0, 2_000.0, self.n_payments) * (1 + 2 * (card % _RISKY == 0))).astype(np.int64)
        return Payments(
            card=card, cents=cents, paid_at=np.sort(now_us - rng.integers(0, self.days * _DAY, self.n_payments))
        )

    def cards(self, rng: np.random.Generator, n: int) -> Ints:
        """Return cards by chance, a few of them very often."""
        return np.asarray(rng.zipf(_SKEW, n) % self.n_cards, dtype=np.int64)

    def labels(self, now_us: int) -> Mapping[str, Ints]:
        """Return questions about cards of the last two thirds of the time, with their answers."""
        rng = np.random.default_rng(12)
        card = self.cards(rng, self.n_labels)
        asked = np.sort(now_us - rng.integers(_DAY, self.days * _DAY * 2 // 3, self.n_labels)) // 1_000 * 1_000
        fraud = rng.random(self.n_labels) < np.where(card % _RISKY == 0, 0.5, 0.1)
        return {"card_id": card, "asked_at": asked, "known_at": asked + _HOUR, "fraud": fraud.astype(np.int64)}


def write_project(repo: Path, shape: Shape, now_us: int) -> Payments:
    """Write the repo with its history and labels; return the history."""
    (repo / "data").mkdir(parents=True)
    history, labels = shape.history(now_us), shape.labels(now_us)
    rows = {
        "card_id": history.card,
        "amount": history.cents / 100,
        "payment_id": pa.array([f"h{i}" for i in range(shape.n_payments)]),
        "paid_at": _times(history.paid_at),
    }
    pq.write_table(pa.table(rows), repo / "data/payments.parquet")
    times = {name: _times(labels[name]) for name in ("asked_at", "known_at")}
    pq.write_table(pa.table({**labels, **times}), repo / "data/labels.parquet")
    (repo / "feature_store.yaml").write_text(_CONFIG)
    (repo / "definitions.py").write_text(_DEFINITIONS)
    (repo / "models.py").write_text(_MODELS.format(rounds=shape.rounds))
    return history


def add_aggregation(repo: Path) -> None:
    """Change the definitions: the view has one feature more."""
    path = repo / "definitions.py"
    path.write_text(path.read_text().replace(_SLOT, _ADDED))


def _times(values: Ints) -> pa.Array:
    return pa.array(values, pa.int64()).cast(_TIME)
