"""Trains models with XGBoost, on a GPU if possible."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ModelSpec
from skewless.infra.models.runtimes.candidates import find_providers
from skewless.infra.models.runtimes.port import Matrix, Scores, Vector
from skewless.infra.platform.storage.durable import make_folder
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.training.stored_matrix import StoredMatrix
from skewless.training.trainers.port import (
    AnyTrainingSet,
    Parameters,
    Queries,
    StoredTrainingSet,
    TrainedModel,
    cap_thresholds,
    check_labels,
    row_weights,
    split_parameters,
)

Learning = dict[str, list[float]]
Device = Literal["cpu", "cuda"]
_log = EventLogger()

# Of one page of rows in the storage, as numbers; XGBoost builds a histogram per page.
_PAGE_BYTES = 32_000_000

_OBJECTIVE = {
    "binary": "binary:logistic",
    "regression": "reg:squarederror",
    "multiclass": "multi:softprob",
    "ranking": "rank:ndcg",
}


class XGBoostTrainer:
    """A Trainer that uses XGBoost's ``hist`` method; category codes are categorical features.

    It trains on a GPU if XGBoost supports it and the spec's ``device`` allows it. If the GPU fails, for example for
    lack of memory, the CPU trains instead, and this trainer does not use the GPU again.

    Rows in the storage train on the CPU, with bins in files that are deleted after the training.

    Args:
        threads: number of cores.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._gpu_failed = False

    def train(self, rows: AnyTrainingSet, spec: ModelSpec, validation: AnyTrainingSet | None = None) -> TrainedModel:
        """Train a model; see Trainer. XGBoost rejects infinite feature values.

        The returned model scores on the CPU, also if a GPU trained it.
        """
        check_labels(rows, spec)
        params = split_parameters(spec, validation)
        if "device" in params.values:
            raise DefinitionError(
                f"model {spec.name!r} params",
                "has its own field in ModelSpec",
                value="device",
                fix="set ModelSpec.device",
            )
        problem: str | None = None
        is_stored = isinstance(rows.matrix, StoredMatrix)
        can_train_on_gpu = spec.device != "cpu" and not is_stored and not self._gpu_failed
        if can_train_on_gpu and can_use_gpu():
            try:
                booster, learning = self._boost(rows, spec, validation, params, "cuda")
                return _build_model(self._on_cpu(booster), rows.feature_names, learning, "cuda")
            except xgb.core.XGBoostError as error:
                problem = _first_line(error)
        try:
            booster, learning = self._boost(rows, spec, validation, params, "cpu")
        except xgb.core.XGBoostError as error:
            raise DefinitionError(
                f"model {spec.name!r}", f"is rejected by XGBoost: {_first_line(error)}", fix="correct its params"
            ) from error
        if (
            problem is not None
        ):  # logged only now, because invalid parameters also fail on the CPU and are not a GPU failure
            self._gpu_failed = True
            _log.warning("gpu_training_failed", model=spec.name, reason=problem, trained_on="cpu")
        return _build_model(booster, rows.feature_names, learning, "cpu")

    def _boost(
        self,
        rows: AnyTrainingSet,
        spec: ModelSpec,
        validation: AnyTrainingSet | None,
        params: Parameters,
        device: Device,
    ) -> tuple[xgb.Booster, Learning]:
        with ExitStack() as stack:
            train = self._matrix(rows, spec, params, stack)
            validation_sets = []
            if validation is not None:
                validation_sets = [(self._matrix(validation, spec, params, stack, train), "validation")]
            history: dict[str, Learning] = {}
            booster = xgb.train(
                self._options(spec, params, device),
                train,
                spec.rounds,
                evals=validation_sets,
                early_stopping_rounds=params.early_stopping,
                evals_result=history,
                verbose_eval=False,
            )
            # XGBoost keeps the rounds after the best, and would score with them.
            best = booster[: booster.best_iteration + 1] if params.early_stopping else booster
            return best, history.get("validation", {})

    def _options(self, spec: ModelSpec, params: Parameters, device: Device) -> dict[str, Any]:
        return {
            "objective": _OBJECTIVE[spec.task],
            **params.values,
            **({"num_class": len(spec.classes)} if spec.classes else {}),
            "tree_method": "hist",
            "device": device,
            "seed": spec.seed,
            "nthread": self._threads,
            "verbosity": 0,
        }

    def _on_cpu(self, booster: xgb.Booster) -> xgb.Booster:
        """Return the model, loaded again from its bytes, so that no part of it stays on the device."""
        return xgb.Booster({"device": "cpu", "nthread": self._threads, "verbosity": 0}, model_file=_bytes(booster))

    def _matrix(
        self,
        rows: AnyTrainingSet,
        spec: ModelSpec,
        params: Parameters,
        stack: ExitStack,
        reference: xgb.DMatrix | None = None,
    ) -> xgb.DMatrix:
        """Return the rows; files of rows in the storage are deleted when the stack ends.

        Args:
            reference: training rows, if these are validation rows: in the storage, both have the same bins.
        """
        queries = Queries.of(rows) if spec.task == "ranking" else None
        ordered = rows if queries is None else queries.rows
        types = ["c" if index in rows.categorical else "q" for index in range(len(rows.feature_names))]
        fields = {"feature_types": types} if rows.categorical else {}
        weights = row_weights(ordered, spec) if queries is None else queries.weights()
        matrix = ordered.matrix
        if not isinstance(matrix, StoredMatrix):
            return xgb.DMatrix(
                matrix,
                label=ordered.labels,
                weight=weights,
                qid=ordered.groups if queries else None,
                enable_categorical=bool(rows.categorical),
                nthread=self._threads,
                **fields,
            )
        make_folder(matrix.scratch)
        folder = stack.enter_context(TemporaryDirectory(dir=matrix.scratch))
        stored = cast("StoredTrainingSet", ordered)
        pages = _Pages(stored, weights, None if queries is None else queries.sizes, fields, f"{folder}/pages")
        return xgb.ExtMemQuantileDMatrix(
            pages,
            max_bin=params.values.get("max_bin"),
            ref=reference,
            enable_categorical=bool(rows.categorical),
            nthread=self._threads,
        )


class _Pages(xgb.DataIter):
    """The rows of a training set in the storage, page by page; a query is never cut.

    Args:
        weights: per row, or per query.
        sizes: rows per query; None: the rows have no queries.
        fields: further arguments of each page.
        prefix: of the paths of XGBoost's own files.
    """

    def __init__(
        self,
        rows: StoredTrainingSet,
        weights: Vector | None,
        sizes: NDArray[np.int64] | None,
        fields: Mapping[str, Any],
        prefix: str,
    ) -> None:
        super().__init__(cache_prefix=prefix)
        self._rows, self._weights, self._fields, self._is_ranking = rows, weights, fields, sizes is not None
        count, columns = rows.matrix.shape
        page = max(1, _PAGE_BYTES // (8 * columns))
        # Rows and queries up to the end of each page.
        ends = np.arange(1, count + 1) if sizes is None else np.cumsum(sizes)
        last = np.unique(np.minimum(np.searchsorted(ends, np.arange(page, count + page, page)), len(ends) - 1))
        self._ends = [(0, 0), *zip(ends[last].tolist(), (last + 1).tolist(), strict=True)]
        self._next = 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Give the next page to XGBoost; return False after the last."""
        if self._next + 1 == len(self._ends):
            return False
        (first, first_query), (end, end_query) = self._ends[self._next : self._next + 2]
        self._next += 1
        rows, weights, groups = self._rows, self._weights, self._rows.groups
        part = slice(first_query, end_query) if self._is_ranking else slice(first, end)
        input_data(
            data=rows.matrix.read(first, end - first),
            label=rows.labels[first:end],
            weight=None if weights is None else weights[part],
            qid=groups[first:end] if self._is_ranking and groups is not None else None,
            **self._fields,
        )
        return True

    def reset(self) -> None:
        """Begin with the first page again."""
        self._next = 0


def can_use_gpu() -> bool:
    """Return whether a package for GPUs is installed that says that XGBoost can train on one."""
    return any(each.can_train() for each in find_providers("gpu") if "xgboost" in each.algorithms)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _bytes(booster: xgb.Booster) -> bytearray:
    return bytearray(booster.save_raw("json"))


def _build_model(booster: xgb.Booster, names: tuple[str, ...], learning: Learning, device: Device) -> TrainedModel:
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
        thresholds=cap_thresholds(split_thresholds(json.loads(model))),
        importance={name: _sum(gains.get(f"f{index}", 0.0)) for index, name in enumerate(names)},
        splits={name: int(_sum(splits.get(f"f{index}", 0.0))) for index, name in enumerate(names)},
        learning={metric: [float(value) for value in values] for metric, values in learning.items()},
    )


def _predict(booster: xgb.Booster, matrix: Matrix, kind: str) -> Scores:
    # Without a DMatrix, which would reject the infinities in the reference rows.
    return np.asarray(booster.inplace_predict(matrix, predict_type=kind, missing=np.nan)).astype(np.float64)


def _sum(value: float | list[float]) -> float:
    return float(np.sum(value))


def split_thresholds(model: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield (feature, threshold) of every split of a model in JSON; for a categorical split, each of its categories."""
    booster = model["learner"]["gradient_booster"]
    for tree in booster.get("gbtree", booster)["model"]["trees"]:
        nodes = zip(
            tree["split_indices"], tree["split_conditions"], tree["left_children"], tree["split_type"], strict=True
        )
        # XGBoost compares in float32, and the decimals of the JSON are not exactly that number.
        yield from ((feature, float(np.float32(at))) for feature, at, left, kind in nodes if left != -1 and not kind)
        for node, start, size in zip(
            tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
        ):
            feature = tree["split_indices"][node]
            yield from ((feature, float(code)) for code in tree["categories"][start : start + size])
