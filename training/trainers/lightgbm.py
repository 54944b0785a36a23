"""Trains models with LightGBM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np

from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ModelSpec
from skewless.infra.runtimes.port import Matrix, Scores
from skewless.training.trainers.port import (
    Parameters,
    Queries,
    TrainedModel,
    TrainingSet,
    cap_thresholds,
    check_labels,
    row_weights,
    split_parameters,
)

Learning = dict[str, list[float]]

_OBJECTIVE = {"binary": "binary", "regression": "regression", "multiclass": "multiclass", "ranking": "lambdarank"}


@dataclass(frozen=True)
class LightGBMTrainer:
    """A Trainer that uses LightGBM; category codes are categorical features.

    Args:
        threads: number of cores; it does not change the model.
    """

    threads: int = 1

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer."""
        check_labels(rows, spec)
        params = split_parameters(spec, validation)
        try:
            booster, learning = self._boost(rows, spec, validation, params)
        except lgb.basic.LightGBMError as error:
            raise DefinitionError(
                f"model {spec.name!r}", f"is rejected by LightGBM: {error}", fix="correct its params"
            ) from error
        return _build_model(booster, rows.feature_names, learning)

    def _boost(
        self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None, params: Parameters
    ) -> tuple[lgb.Booster, Learning]:
        options = self._options(spec, params)
        train = _dataset(rows, spec, options, None)
        validation_sets = [] if validation is None else [_dataset(validation, spec, options, train)]
        history: dict[str, Learning] = {}
        callbacks: list[Callable[..., Any]] = [lgb.record_evaluation(history)]
        if params.early_stopping:
            callbacks.append(lgb.early_stopping(params.early_stopping, verbose=False))
        booster = lgb.train(options, train, spec.rounds, valid_sets=validation_sets, callbacks=callbacks)
        return booster, {metric: list(values) for each in history.values() for metric, values in each.items()}

    def _options(self, spec: ModelSpec, params: Parameters) -> dict[str, Any]:
        return {
            "objective": _OBJECTIVE[spec.task],
            **params.values,
            **({"num_class": len(spec.classes)} if spec.classes else {}),
            # After the user's parameters, so that these cannot change it. Without a fixed layout, LightGBM times both
            # and picks one, so two runs could give different bits.
            "deterministic": True,
            "force_row_wise": True,
            "seed": spec.seed,
            "num_threads": self.threads,
            "verbosity": -1,
        }


def _dataset(
    rows: TrainingSet, spec: ModelSpec, options: Mapping[str, Any], reference: lgb.Dataset | None
) -> lgb.Dataset:
    queries = Queries.of(rows) if spec.task == "ranking" else None
    ordered = rows if queries is None else queries.rows
    return lgb.Dataset(
        ordered.matrix,
        label=ordered.labels,
        weight=row_weights(ordered, spec),
        group=None if queries is None else queries.sizes,
        # A split lies between bins of the training rows, so validation rows must have the same bins.
        reference=reference,
        categorical_feature=list(ordered.categorical),
        params=dict(options),
    )


def _build_model(booster: lgb.Booster, names: tuple[str, ...], learning: Learning) -> TrainedModel:
    """Return the model up to its best round, as LightGBM's own methods use by default."""
    gains, splits = (booster.feature_importance(importance_type=kind) for kind in ("gain", "split"))
    return TrainedModel(
        algorithm="lightgbm",
        library=f"lightgbm {lgb.__version__}",
        model=_text(booster),
        file_name="model.txt",
        rounds=max(booster.best_iteration, 0) or booster.current_iteration(),
        raw_margin=lambda matrix: _predict(booster, matrix, raw=True),
        score=lambda matrix: _predict(booster, matrix, raw=False),
        thresholds=cap_thresholds(split_thresholds(booster.dump_model())),
        importance=dict(zip(names, map(float, gains), strict=True)),
        splits=dict(zip(names, map(int, splits), strict=True)),
        learning=learning,
    )


def _text(booster: lgb.Booster) -> bytes:
    """Return the model's text with the number of threads set to 1, because all else is independent of the machine."""
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 1]", booster.model_to_string()).encode()


def _predict(booster: lgb.Booster, matrix: Matrix, *, raw: bool) -> Scores:
    return np.asarray(booster.predict(matrix, raw_score=raw), dtype=np.float64)


def split_thresholds(dump: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield (feature, threshold) of every split; for a categorical split, each of its categories."""
    nodes = [tree["tree_structure"] for tree in dump["tree_info"]]
    while nodes:
        node = nodes.pop()
        if "split_feature" not in node:
            continue
        nodes += [node["left_child"], node["right_child"]]
        if node["decision_type"] == "==":
            yield from ((node["split_feature"], float(code)) for code in node["threshold"].split("||"))
        else:
            yield node["split_feature"], float(node["threshold"])
