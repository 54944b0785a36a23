"""Trains a model from a dataset, evaluates it and writes its package; promotion is a separate step."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from skewless.contract.bounds import Bounds
from skewless.contract.clock import from_us
from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.lifecycle import Search
from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import ALGORITHMS, Algorithm, ModelSpec
from skewless.infra.models.packages.package import Package, PackageContents, pin_plan
from skewless.infra.models.packages.served_model import load_model
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import write_package
from skewless.infra.models.runtimes.certification import Reference, reference_rows
from skewless.infra.models.runtimes.port import Scores
from skewless.infra.platform.host.plugins import require_plugin
from skewless.infra.records.predictions.record import largest_output
from skewless.training.constraints import describe_constraints, index_constraints
from skewless.training.curves import ROWS, column_profile, compute_curves, compute_importance, profile_features
from skewless.training.mode_gap import spread_indices
from skewless.training.quality import measure
from skewless.training.stored_matrix import score_rows
from skewless.training.trainers.port import (
    AnyTrainingSet,
    StreamTrainer,
    TrainedModel,
    Trainer,
    check_features_present,
)
from skewless.training.training_data import TrainingData
from skewless.validation.evaluation.evaluation import calibration_table, evaluate, gate_metric
from skewless.validation.evaluation.metrics import ScoredRows, metric_value

if TYPE_CHECKING:
    from optuna import Trial as Draw


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Parameters of one trial, with their gate metric on the validation rows."""

    params: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search.

    Args:
        metric: name of the gate's metric.
        trials: all trials, in order; the first has the declared parameters.
        best: index of the best trial.
    """

    metric: str
    trials: tuple[Trial, ...]
    best: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"metric": self.metric, "best": self.best, "trials": [asdict(trial) for trial in self.trials]}


def search(trainer: Trainer, rows: AnyTrainingSet, spec: ModelSpec, validation: AnyTrainingSet | None) -> SearchResult:
    """Try parameters until the trials or the seconds of ``spec.search`` are used up.

    The declared parameters are tried first, so the result is never worse than they are on the validation rows.
    The same rows, spec and number of trials give the same result.

    Raises:
        DefinitionError: no search or no validation period is declared, Optuna is not installed, or a parameter's
            space is invalid.
        SourceError: the gate's metric is undefined on the validation rows in every trial.
    """
    declared = spec.search
    if declared is None or validation is None:
        problem = "is not declared" if declared is None else "has no validation rows"
        raise DefinitionError(f"model {spec.name!r} search", problem, fix="set ModelSpec.search and Split.validation")
    trials: list[Trial] = []

    def run_trial(searched: Mapping[str, Any]) -> float | None:
        params = {**spec.params, **searched}
        model = _fit(trainer, rows, replace(spec, params=params), validation)
        scores = score_rows(model.score, validation.matrix)
        weights, groups = validation.weights, validation.groups
        value = gate_metric(spec, evaluate(validation.labels, scores, weights, task=spec.task, groups=groups))
        trials.append(Trial(params=params, value=value))
        return value

    run_trial({})
    _run_study(spec, declared, run_trial)
    best = _find_best(spec, trials)
    return SearchResult(metric=spec.gate.metric, trials=tuple(trials), best=best)


def _run_study(spec: ModelSpec, declared: Search, run_trial: Callable[[Mapping[str, Any]], float | None]) -> None:
    """Try Optuna's suggestions until the trials or the seconds are used up."""
    optuna = _import_optuna(spec)

    def objective(trial: Draw) -> float:
        value = run_trial({name: _suggest(trial, declared, name) for name in declared.space})
        if value is None:
            # A number in place of an undefined metric would mislead the sampler.
            raise optuna.TrialPruned
        return value

    direction = "minimize" if spec.gate.metric in LOWER_IS_BETTER else "maximize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=spec.seed))
    study.optimize(objective, n_trials=declared.trials, timeout=declared.seconds)


def _import_optuna(spec: ModelSpec) -> ModuleType:
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError as error:
        fix = "install skewless with the extra 'search'"
        raise DefinitionError(f"model {spec.name!r} search", "needs Optuna", value=str(error), fix=fix) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _suggest(trial: Draw, declared: Search, name: str) -> Any:  # noqa: ANN401 - of the space
    space = declared.space[name]
    if "choices" in space:
        return trial.suggest_categorical(name, space["choices"])
    low, high = space["low"], space["high"]
    is_integer = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if is_integer else trial.suggest_float)(name, low, high, log=name in declared.log)


def _fit(trainer: Trainer, rows: AnyTrainingSet, spec: ModelSpec, validation: AnyTrainingSet | None) -> TrainedModel:
    # A training set is in the storage only if the trainer of its algorithm reads it from there.
    return cast("StreamTrainer", trainer).train(rows, index_constraints(spec, rows.feature_names), validation)


def _find_best(spec: ModelSpec, trials: Sequence[Trial]) -> int:
    sign = -1.0 if spec.gate.metric in LOWER_IS_BETTER else 1.0
    # Of equal trials the first wins, so the declared parameters change only for a real gain.
    results = [(sign * trial.value, -number) for number, trial in enumerate(trials) if trial.value is not None]
    if not results:
        raise SourceError(
            f"labels of model {spec.name!r}",
            f"have no {spec.gate.metric} on the validation rows",
            fix="lengthen Split.validation, or choose another metric",
        )
    return -max(results)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedModel:
    """A trained model with its evaluation.

    Args:
        spec: its spec, with the best parameters if there was a search.
        scores: scores of the dataset's test rows.
        metrics: metrics of these scores.
    """

    spec: ModelSpec
    model: TrainedModel
    scores: Scores
    metrics: dict[str, Any]
    search: SearchResult | None = None


def build_package_contents(dataset: TrainingData, fitted: FittedModel, bounds: Bounds, now_us: int) -> PackageContents:
    """Return the contents of a trained model's package."""
    spec, model, test = fitted.spec, fitted.model, dataset.test
    # Rows at the model's own thresholds: there a runtime that rounds or compares otherwise takes another branch
    # (SEMANTICS 6.3).
    rows = reference_rows(model.thresholds, len(dataset.names), spec.seed)
    constraints = describe_constraints(spec, dataset.names)
    return PackageContents(
        model_name=model.file_name,
        model=model.model,
        spec=spec,
        plan=pin_plan(dataset.plan, dataset.vocabularies),
        reference=Reference(rows, model.raw_margin(rows), model.score(rows)),
        profile=_profile(dataset, spec, fitted.scores),
        metrics=fitted.metrics,
        fingerprint={
            "dataset": dataset.fingerprint,
            "train_rows": int(dataset.train.sum()),
            "test_rows": int(dataset.test.sum()),
            "counts": dict(dataset.counts),
            "status": {view: dict(counts) for view, counts in dataset.status.items()},
        }
        | ({"weights": weights} if (weights := dataset.weight_summary) else {}),
        about={
            "trained_at": from_us(now_us).isoformat(),
            "as_of_us": now_us if dataset.as_of_us is None else dataset.as_of_us,
            "library": model.library,
            "python": platform.python_version(),
            "rounds": model.rounds,
            "importance": dict(model.importance),
            "time_mode": spec.time_mode,
            "rows_in": "storage" if dataset.is_stored else "memory",
        }
        | ({"search": fitted.search.as_dict()} if fitted.search else {})
        | ({"constraints": constraints} if constraints else {}),
        bounds=bounds.as_dict(),
        curves=compute_curves(dataset.labels[test], fitted.scores, dataset.weights[test], task=spec.task)
        | {"learning": dict(model.learning), "importance": _importance(dataset, fitted)},
        # Server and replay run this text (SEMANTICS 5.1).
        extra={f"{item.name}.py": item.source for item in dataset.plan.transforms},
    )


def _importance(dataset: TrainingData, fitted: FittedModel) -> dict[str, Any]:
    spec, test = fitted.spec, np.flatnonzero(dataset.test)
    rows = test[spread_indices(test.size, ROWS)]
    groups = None if dataset.groups is None else dataset.groups[rows]

    def metric(scores: Scores) -> float | None:
        scored = ScoredRows(labels=dataset.labels[rows], scores=scores, groups=groups)
        return metric_value(spec.gate.metric, scored, dataset.weights[rows])

    return compute_importance(fitted.model, dataset.take(rows), spec.gate.metric, metric, spec.seed)


def _profile(dataset: TrainingData, spec: ModelSpec, scores: Scores) -> dict[str, Any]:
    """Return the baseline for drift: feature histograms of training rows, scores and labels of test rows."""
    # Scores of training rows would be too good to compare live scores with, so scores and labels are those of test
    # rows.
    result, test = profile_features(dataset.select(dataset.train), dataset.names), dataset.test
    result |= {"score": column_profile(largest_output(scores)), "label": column_profile(dataset.labels[test])}
    if dataset.gap:
        result["mode_gap"] = dataset.gap.as_dict()
    if spec.task == "binary":
        result["calibration"] = calibration_table(dataset.labels[test], scores, dataset.weights[test])
    return result


@dataclass(frozen=True, kw_only=True)
class TrainedVersion:
    """A new package with its scores of the test rows and their metrics."""

    package: Package
    metrics: dict[str, Any]
    scores: Scores


def train(
    dataset: TrainingData,
    spec: ModelSpec,
    store: PackageStore,
    *,
    threads: int,
    now_us: int,
    bounds: Bounds | None = None,
) -> TrainedVersion:
    """Train a model, write its package, and load it as the server would.

    Args:
        bounds: limits of its features and request fields.

    Raises:
        SourceError: labels are invalid for the task, or no feature has a value; nothing was written.
        DefinitionError: the gate's metric is not part of the evaluation, or the search is invalid; nothing was written.
        PackageError: the serving runtime differs from the training library.
    """
    return write_version(*fit(dataset, spec, threads=threads, now_us=now_us, bounds=bounds), store)


def fit(
    dataset: TrainingData, spec: ModelSpec, *, threads: int, now_us: int, bounds: Bounds | None = None
) -> tuple[FittedModel, PackageContents]:
    """Train a model and return it with the contents of its package; nothing is written. As ``train``."""
    trainer, rows = find_trainer(spec.algorithm, threads), dataset.training_rows(dataset.train)
    validation = dataset.training_rows(dataset.validation) if dataset.validation.any() else None
    check_features_present(spec, rows)
    result = search(trainer, rows, spec, validation) if spec.search else None
    if result is not None:
        # The package has the parameters that it was trained with.
        spec = replace(spec, params=result.trials[result.best].params)
    model = _fit(trainer, rows, spec, validation)
    scores = score_rows(model.score, dataset.select(dataset.test))
    metrics = measure(dataset, spec, scores)
    gate_metric(spec, metrics)  # raises now, before anything is written, if the evaluation lacks the gate's metric
    fitted = FittedModel(spec=spec, model=model, scores=scores, metrics=metrics, search=result)
    return fitted, build_package_contents(dataset, fitted, bounds or Bounds(), now_us)


def write_version(fitted: FittedModel, contents: PackageContents, store: PackageStore) -> TrainedVersion:
    """Write the package of a model, and load it as the server would. As ``train``."""
    name, package = fitted.spec.name, write_package(store, fitted.spec.name, contents)
    # A runtime that differs from the library in any bit must fail here, not at the first server (SEMANTICS 6.3).
    load_model(store, name, package.version).runtime.close()
    return TrainedVersion(package=package, metrics=fitted.metrics, scores=fitted.scores)


def find_trainer(algorithm: Algorithm, threads: int = 1) -> Trainer:
    """Return the trainer of an algorithm. Its library is imported only now, because that takes seconds.

    A package can register further algorithms in the entry point group ``skewless.trainers``, each as a function from
    the number of threads to a Trainer.

    Raises:
        DefinitionError: the library is not installed, or no trainer supports the algorithm.
    """
    # With spinning wait threads, training is three times slower on a machine with other load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if algorithm in ALGORITHMS:
        return _import_trainer(algorithm, threads)
    make: Callable[[int], Trainer] = require_plugin("skewless.trainers", algorithm)
    return make(threads)


def _import_trainer(algorithm: Algorithm, threads: int) -> Trainer:
    try:
        if algorithm == "lightgbm":
            from skewless.training.trainers.lightgbm import LightGBMTrainer  # noqa: PLC0415 - seconds to import

            return LightGBMTrainer(threads)
        from skewless.training.trainers.xgboost import XGBoostTrainer  # noqa: PLC0415 - as above

        return XGBoostTrainer(threads)
    except ImportError as error:
        raise DefinitionError(
            f"algorithm {algorithm!r}",
            "is not installed",
            value=str(error),
            fix="install skewless with the extra 'cpu'",
        ) from error
