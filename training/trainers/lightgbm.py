"""Trains models with LightGBM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ModelSpec
from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless.training.stored_matrix import StoredMatrix
from skewless.training.trainers.port import (
    AnyTrainingSet,
    Parameters,
    Queries,
    TrainedModel,
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

    def train(self, rows: AnyTrainingSet, spec: ModelSpec, validation: AnyTrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer. Rows in the storage give the model of the same rows in memory."""
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
        self, rows: AnyTrainingSet, spec: ModelSpec, validation: AnyTrainingSet | None, params: Parameters
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


class _RowSequence(lgb.Sequence):
    """Rows of a stored matrix; LightGBM reads single ones for its bins, then all in batches, both in order."""

    def __init__(self, matrix: StoredMatrix) -> None:
        self.batch_size = matrix.batch_rows
        self._matrix = matrix
        self._first = 0
        self._batch = matrix.read(0, 0)

    def __len__(self) -> int:
        return self._matrix.shape[0]

    def __getitem__(self, index: int | slice | list[int]) -> npt.NDArray[np.float64]:
        if isinstance(index, slice):
            return self._matrix.read(index.start, index.stop - index.start)
        if isinstance(index, list):
            return np.stack([self[each] for each in index])
        if not self._first <= index < self._first + len(self._batch):
            self._first = index // self.batch_size * self.batch_size
            self._batch = self._matrix.read(self._first, self.batch_size)
        row: npt.NDArray[np.float64] = self._batch[index - self._first]
        return row


class _StreamedDataset(lgb.Dataset):
    """A dataset of sequences with the bins of a matrix."""

    def get_params(self) -> dict[str, Any]:
        # LightGBM's own omits the seed and others, and draws the sample for the bins of sequences with the rest.
        return dict(self.params or {})


def _dataset(
    rows: AnyTrainingSet, spec: ModelSpec, options: Mapping[str, Any], reference: lgb.Dataset | None
) -> lgb.Dataset:
    queries = Queries.of(rows) if spec.task == "ranking" else None
    ordered = rows if queries is None else queries.rows
    is_stored = isinstance(ordered.matrix, StoredMatrix)
    return (_StreamedDataset if is_stored else lgb.Dataset)(
        _RowSequence(ordered.matrix) if isinstance(ordered.matrix, StoredMatrix) else ordered.matrix,
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
    # With the threads of the training: the default is all cores, and a server that scores in the same process at the
    # same time would change that number under a prediction, which LightGBM does not survive.
    threads = booster.params.get("num_threads", 0)
    return np.asarray(booster.predict(matrix, raw_score=raw, num_threads=threads), dtype=np.float64)


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
