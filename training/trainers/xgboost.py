"""Training with XGBoost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb

from infra.runtimes.port import Matrix, Scores
from skewless.errors import DefinitionError
from skewless.spec import ModelSpec
from training.trainers.port import TrainedModel, TrainingSet
from training.trainers.queries import Queries
from training.trainers.settings import Parameters, capped, check_labels, parameters, row_weights

Learning = dict[str, list[float]]

_OBJECTIVE = {
    "binary": "binary:logistic",
    "regression": "reg:squarederror",
    "multiclass": "multi:softprob",
    "ranking": "rank:ndcg",
}


@dataclass(frozen=True)
class XGBoostTrainer:
    """A Trainer over XGBoost's ``hist``; category codes are given to it as categories.

    Args:
        threads: cores to train with.
    """

    threads: int = 1

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer. An infinite feature value is refused by XGBoost."""
        check_labels(rows, spec)
        given = parameters(spec, validation)
        try:
            booster, learning = self._boost(rows, spec, validation, given)
        except xgb.core.XGBoostError as error:
            message = str(error).splitlines()[0]
            raise DefinitionError(f"model {spec.name!r}", f"XGBoost says: {message}", fix="check its params") from error
        return _trained(booster, rows.feature_names, learning)

    def _boost(
        self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None, given: Parameters
    ) -> tuple[xgb.Booster, Learning]:
        train = self._matrix(rows, spec)
        watched = [] if validation is None else [(self._matrix(validation, spec), "validation")]
        seen: dict[str, Learning] = {}
        booster = xgb.train(
            self._options(spec, given),
            train,
            spec.rounds,
            evals=watched,
            early_stopping_rounds=given.early_stopping,
            evals_result=seen,
            verbose_eval=False,
        )
        kept = booster[: booster.best_iteration + 1] if given.early_stopping else booster
        return kept, seen.get("validation", {})

    def _options(self, spec: ModelSpec, given: Parameters) -> dict[str, Any]:
        return {
            "objective": _OBJECTIVE[spec.task],
            **given.values,
            **({"num_class": len(spec.classes)} if spec.classes else {}),
            "tree_method": "hist",
            "seed": spec.seed,
            "nthread": self.threads,
            "verbosity": 0,
        }

    def _matrix(self, rows: TrainingSet, spec: ModelSpec) -> xgb.DMatrix:
        queries = Queries.of(rows) if spec.task == "ranking" else None
        given = rows if queries is None else queries.rows
        types = ["c" if index in rows.categorical else "q" for index in range(len(rows.feature_names))]
        return xgb.DMatrix(
            given.matrix,
            label=given.labels,
            weight=row_weights(given, spec) if queries is None else queries.weights(),
            qid=given.groups if queries else None,
            feature_types=types if rows.categorical else None,
            enable_categorical=bool(rows.categorical),
            nthread=self.threads,
        )


def _trained(booster: xgb.Booster, names: tuple[str, ...], learning: Learning) -> TrainedModel:
    model = bytes(booster.save_raw("json"))
    gains, splits = (booster.get_score(importance_type=kind) for kind in ("total_gain", "weight"))
    return TrainedModel(
        algorithm="xgboost",
        library=f"xgboost {xgb.__version__}",
        model=model,
        file_name="model.json",
        rounds=booster.num_boosted_rounds(),
        raw_margin=lambda matrix: _predict(booster, matrix, "margin"),
        score=lambda matrix: _predict(booster, matrix, "value"),
        thresholds=capped(split_thresholds(json.loads(model))),
        importance={name: _number(gains.get(f"f{index}", 0.0)) for index, name in enumerate(names)},
        splits={name: int(_number(splits.get(f"f{index}", 0.0))) for index, name in enumerate(names)},
        learning={metric: [float(value) for value in values] for metric, values in learning.items()},
    )


def _predict(booster: xgb.Booster, matrix: Matrix, kind: str) -> Scores:
    # Not through a DMatrix, which refuses the infinities among the reference rows.
    return np.asarray(booster.inplace_predict(matrix, predict_type=kind, missing=np.nan)).astype(np.float64)


def _number(value: float | list[float]) -> float:
    return float(np.sum(value))


def split_thresholds(model: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield (feature, threshold) of every split of a model in XGBoost's JSON; of categories each one."""
    booster = model["learner"]["gradient_booster"]
    for tree in booster.get("gbtree", booster)["model"]["trees"]:
        nodes = zip(
            tree["split_indices"], tree["split_conditions"], tree["left_children"], tree["split_type"], strict=True
        )
        yield from ((feature, float(np.float32(at))) for feature, at, left, kind in nodes if left != -1 and not kind)
        for node, start, size in zip(
            tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
        ):
            feature = tree["split_indices"][node]
            yield from ((feature, float(code)) for code in tree["categories"][start : start + size])
