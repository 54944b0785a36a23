"""Searches better parameters on the validation rows, with Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.lifecycle import Search
from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import ModelSpec
from skewless.training.trainers.port import Trainer, TrainingSet
from skewless.validation.evaluation.evaluation import evaluate, gate_metric

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
        params: all parameters of the model, with the best searched values.
        metric: name of the gate's metric.
        trials: all trials, in order; the first has the declared parameters.
        best: index of the best trial.
    """

    params: Mapping[str, Any]
    metric: str
    trials: tuple[Trial, ...]
    best: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"metric": self.metric, "best": self.best, "trials": [asdict(trial) for trial in self.trials]}


def search(trainer: Trainer, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet | None) -> SearchResult:
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
        value = _train_and_measure(trainer, rows, replace(spec, params=params), validation)
        trials.append(Trial(params=params, value=value))
        return value

    run_trial({})
    _run_study(spec, declared, run_trial)
    best = _find_best(spec, trials)
    return SearchResult(params=trials[best].params, metric=spec.gate.metric, trials=tuple(trials), best=best)


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


def _train_and_measure(trainer: Trainer, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet) -> float | None:
    scores = trainer.train(rows, spec, validation).score(validation.matrix)
    weights, groups = validation.weights, validation.groups
    return gate_metric(spec, evaluate(validation.labels, scores, weights, task=spec.task, groups=groups))


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
