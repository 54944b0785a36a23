"""The project that servers are measured on: cards and shops, their features in some views, one model that scores pairs.

Everything is made up from a seed, so that the vector of a pair is known without asking anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.meter import Meter
from benchmarks.repo import HOUR_US, LOCAL, OURS, START_US

Matrix = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_NULL_SHARE = 0.05
_TIME = pa.timestamp("us", tz="UTC")
_HEAD = """from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
"""
_VIEW = """
{name} = FeatureView(
    name="{name}",
    entities=[{entity}],
    schema=[
        Field(name="{entity}_id", dtype={key}),
        *(Field(name=f"{name}_{{i:04}}", dtype=Float64) for i in range({n})),
    ],
    source=FileSource(path={path!r}, timestamp_field="event_time"),
)
"""
_MODELS = """from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split

MODELS = [
    ModelSpec(
        name=f"fraud{{i:02}}" if i else "fraud",
        service="all",
        labels=LabelSource(path={path!r}, event_time="paid_at", known_time="known_at", label="fraud"),
        algorithm={algorithm!r},
        split=Split(test=timedelta(hours=2)),
        params={params!r},
        rounds={rounds},
        seed=7 + i,
    )
    for i in range({models})
]
"""


@dataclass(frozen=True, kw_only=True)
class View:
    """One feature view: of cards or of shops."""

    place: int
    n_entities: int
    n_features: int

    @property
    def entity(self) -> str:
        """Return whose features they are."""
        return ("card", "shop")[self.place % 2]

    @property
    def name(self) -> str:
        """Return the view's name."""
        return f"{self.entity}s{self.place}"

    @cached_property
    def values(self) -> Matrix:
        """Return the features of all entities, NaN for null, shape ``(n_entities, n_features)``."""
        rng = np.random.default_rng([self.place, self.n_entities, self.n_features])
        values = rng.normal(size=(self.n_entities, self.n_features))
        values[:, ::3][rng.random((self.n_entities, len(range(0, self.n_features, 3)))) < _NULL_SHARE] = np.nan
        return values

    def table(self) -> pa.Table:
        """Return its rows, one per entity."""
        ids = np.arange(self.n_entities)
        columns = {f"{self.name}_{i:04}": pa.array(self.values[:, i], from_pandas=True) for i in range(self.n_features)}
        key = pa.array(ids) if self.entity == "card" else pa.array(map(shop_name, ids.tolist()), pa.string())
        return pa.table({f"{self.entity}_id": key, "event_time": _times(START_US + ids % HOUR_US), **columns})


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large the project is.

    Args:
        n_features: over all views, spread evenly.
        n_views: of cards and shops in turn.
        rounds: trees of the model.
        models: how many of the same kind are trained.
        n_labels: rows that a model is trained on, before the split.
        n_served: number of views that the models read; 0: all.
    """

    n_cards: int = 100_000
    n_shops: int = 10_000
    n_features: int = 40
    n_views: int = 2
    algorithm: str = "lightgbm"
    rounds: int = 200
    leaves: int = 63
    models: int = 1
    n_labels: int = 40_000
    n_served: int = 0

    @cached_property
    def views(self) -> tuple[View, ...]:
        """Return the views."""
        shares = [len(part) for part in np.array_split(np.arange(self.n_features), self.n_views)]
        sizes = (self.n_cards, self.n_shops)
        return tuple(View(place=i, n_entities=sizes[i % 2], n_features=n) for i, n in enumerate(shares))

    def pairs(self, n: int, seed: int = 5) -> Ids:
        """Return pairs of card and shop by chance, shape ``(n, 2)``."""
        rng = np.random.default_rng(seed)
        return np.stack([rng.integers(0, self.n_cards, n), rng.integers(0, self.n_shops, n)], axis=1)

    def vectors(self, pairs: Ids) -> Matrix:
        """Return what the model must see of pairs, shape ``(n, n_features)``."""
        return np.hstack([view.values[pairs[:, view.place % 2]] for view in self.views])

    def labels(self) -> pa.Table:
        """Return payments with a label that depends on some features and on chance."""
        rng = np.random.default_rng(9)
        pairs = self.pairs(self.n_labels, seed=8)
        seen = np.nan_to_num(self.vectors(pairs))
        width = seen.shape[1]
        odds = seen[:, 0] * seen[:, width // 2] + np.sin(2 * seen[:, 1 % width]) + 0.5 * seen[:, -1] - 1
        paid = START_US + 2 * HOUR_US + np.sort(rng.integers(0, 10 * HOUR_US, self.n_labels))
        return pa.table(
            {
                "card_id": pairs[:, 0],
                "shop_id": pa.array(map(shop_name, pairs[:, 1].tolist()), pa.string()),
                "paid_at": _times(paid),
                "known_at": _times(paid + 1),
                "fraud": (rng.random(self.n_labels) < 1 / (1 + np.exp(-odds))).astype(np.int64),
            }
        )


def write_project(folder: Path, shape: Shape, store: str = OURS + LOCAL) -> Path:
    """Write the tables and a repo named ``repo`` into a folder; return the repo.

    Args:
        store: the lines of ``feature_store.yaml`` that name the online store and the provider.
    """
    repo = folder / "repo"
    repo.mkdir(parents=True)
    for view in shape.views:
        pq.write_table(view.table(), folder / f"{view.name}.parquet")
    pq.write_table(shape.labels(), folder / "labels.parquet")
    (repo / "feature_store.yaml").write_text(
        "project: bench\nregistry: .skewless/registry.db\noffline_store:\n  type: duckdb\n"
        f"entity_key_serialization_version: 3\n{store}"
    )
    (repo / "definitions.py").write_text(_definitions(folder, shape.views, shape.n_served))
    params = _PARAMS[shape.algorithm](shape.leaves)
    (repo / "models.py").write_text(
        _MODELS.format(
            path=str(folder / "labels.parquet"),
            algorithm=shape.algorithm,
            params=params,
            rounds=shape.rounds,
            models=shape.models,
        )
    )
    return repo


def fill(meter: Meter, *, repo: str, url: str) -> str:
    """Apply, materialise and train all models of a repo: an entrant, so that it has a process of its own."""
    from skewless import Project  # noqa: PLC0415 - it brings Feast with it, which the parent does without

    with Project(repo, redis_url=url) as project:
        project.apply()
        with meter.lap("materialize"):
            project.materialize(check=False)
        with meter.lap("train"):
            reports = [project.train(spec.name) for spec in project.models]
    assert all(report.decision.promote for report in reports)
    return "-"


def model_file(repo: Path, model: str = "fraud") -> Path:
    """Return the model of the first version as its library wrote it."""
    (found,) = (repo / ".skewless" / "packages" / model / "000001").glob("model.*")
    return found


def shop_name(number: int) -> str:
    """Return the key of a shop."""
    return f"shop-{number:06}"


def _definitions(folder: Path, views: Sequence[View], n_served: int) -> str:
    parts = [
        _VIEW.format(
            name=view.name,
            entity=view.entity,
            key="Int64" if view.entity == "card" else "String",
            n=view.n_features,
            path=str(folder / f"{view.name}.parquet"),
        )
        for view in views
    ]
    served = ", ".join(view.name for view in views[: n_served or None])
    service = f'service = FeatureService(name="all", features=[{served}])\n'
    return "\n".join([_HEAD, *parts, service])


def _lightgbm(leaves: int) -> dict[str, Any]:
    return {"num_leaves": leaves, "learning_rate": 0.05, "min_data_in_leaf": 20, "min_sum_hessian_in_leaf": 0.0}


def _xgboost(leaves: int) -> dict[str, Any]:
    return {"max_leaves": leaves, "grow_policy": "lossguide", "max_depth": 0, "eta": 0.05, "min_child_weight": 0.0}


_PARAMS = {"lightgbm": _lightgbm, "xgboost": _xgboost}


def _times(values: Ids) -> pa.Array:
    return pa.array(values.astype(np.int64), pa.int64()).cast(_TIME)
