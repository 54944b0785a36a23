"""Training with XGBoost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import structlog
import xgboost as xgb

from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ModelSpec
from skewless.infra.runtimes import cuda, xgboost_cuda
from skewless.infra.runtimes.port import Matrix, Scores
from skewless.training.trainers.port import Queries, TrainedModel, TrainingSet
from skewless.training.trainers.settings import Parameters, capped, check_labels, parameters, row_weights

Learning = dict[str, list[float]]
Device = Literal["cpu", "cuda"]
_log = structlog.get_logger()

_OBJECTIVE = {
    "binary": "binary:logistic",
    "regression": "reg:squarederror",
    "multiclass": "multi:softprob",
    "ranking": "rank:ndcg",
}


class XGBoostTrainer:
    """A Trainer over XGBoost's ``hist``; category codes are given to it as categories.

    Where there is a GPU that XGBoost is built for, and the spec's ``device`` allows it, the trees grow there. Whatever
    goes wrong there, for example too little memory, the CPU trains instead, and this trainer asks the GPU no more.

    Args:
        threads: cores to train with.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._gpu_failed = False

    def train(self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer. An infinite feature value is refused by XGBoost.

        The library's own margins and scores are those of the CPU, wherever the trees grew.
        """
        check_labels(rows, spec)
        given = parameters(spec, validation)
        if "device" in given.values:
            raise DefinitionError(
                f"model {spec.name!r} params", "has a field of its own", value="device", fix="set ModelSpec.device"
            )
        problem: str | None = None
        if spec.device != "cpu" and not self._gpu_failed and can_use_gpu():
            try:
                booster, learning = self._boost(rows, spec, validation, given, "cuda")
                return _trained(self._on_cpu(booster), rows.feature_names, learning, "cuda")
            except xgb.core.XGBoostError as error:
                problem = _first_line(error)
        try:
            booster, learning = self._boost(rows, spec, validation, given, "cpu")
        except xgb.core.XGBoostError as error:
            raise DefinitionError(
                f"model {spec.name!r}", f"XGBoost says: {_first_line(error)}", fix="check its params"
            ) from error
        if problem is not None:  # said only now: parameters that are wrong anywhere are no failure of the GPU
            self._gpu_failed = True
            _log.warning("gpu_training_failed", model=spec.name, reason=problem, trained_on="cpu")
        return _trained(booster, rows.feature_names, learning, "cpu")

    def _boost(
        self, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None, given: Parameters, device: Device
    ) -> tuple[xgb.Booster, Learning]:
        train = self._matrix(rows, spec)
        watched = [] if validation is None else [(self._matrix(validation, spec), "validation")]
        seen: dict[str, Learning] = {}
        booster = xgb.train(
            self._options(spec, given, device),
            train,
            spec.rounds,
            evals=watched,
            early_stopping_rounds=given.early_stopping,
            evals_result=seen,
            verbose_eval=False,
        )
        kept = booster[: booster.best_iteration + 1] if given.early_stopping else booster
        return kept, seen.get("validation", {})

    def _options(self, spec: ModelSpec, given: Parameters, device: Device) -> dict[str, Any]:
        return {
            "objective": _OBJECTIVE[spec.task],
            **given.values,
            **({"num_class": len(spec.classes)} if spec.classes else {}),
            "tree_method": "hist",
            "device": device,
            "seed": spec.seed,
            "nthread": self._threads,
            "verbosity": 0,
        }

    def _on_cpu(self, booster: xgb.Booster) -> xgb.Booster:
        """Return the model read back from its bytes: nothing of it stays on the device."""
        return xgb.Booster({"device": "cpu", "nthread": self._threads, "verbosity": 0}, model_file=_bytes(booster))

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
            nthread=self._threads,
        )


def can_use_gpu() -> bool:
    """Say whether XGBoost can train on a GPU here: it is built with CUDA, and the driver shows a device."""
    return cuda.driver().problem is None and xgboost_cuda.has_cuda()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _bytes(booster: xgb.Booster) -> bytearray:
    return bytearray(booster.save_raw("json"))


def _trained(booster: xgb.Booster, names: tuple[str, ...], learning: Learning, device: Device) -> TrainedModel:
    model = bytes(_bytes(booster))
    gains, splits = (booster.get_score(importance_type=kind) for kind in ("total_gain", "weight"))
    return TrainedModel(
        algorithm="xgboost",
        library=f"xgboost {xgb.__version__}{' (cuda)' if device == 'cuda' else ''}",
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
