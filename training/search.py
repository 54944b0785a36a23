"""A search for better parameters on the validation rows (Optuna's tree-structured Parzen estimator)."""

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
    """Parameters that were tried, and the gate's metric that they reached on the validation rows."""

    params: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Args:
        params: all parameters of the model, with the best of those that were searched.
        metric: the gate's.
        trials: in the order that they were made; the first is that of the declared parameters.
        best: number of the best of them, from 0.
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

    The declared parameters are tried first, so the best is never worse than they are on the validation rows.
    With the same rows, spec and number of trials the result is the same.

    Raises:
        DefinitionError: no search is declared, or no validation period, or Optuna is not installed, or a parameter's
            space cannot be drawn from.
        SourceError: the gate's metric does not exist on the validation rows of any trial.
    """
    declared = spec.search
    if declared is None or validation is None:
        problem = "is not declared" if declared is None else "needs validation rows, and there are none"
        raise DefinitionError(f"model {spec.name!r} search", problem, fix="set ModelSpec.search and Split.validation")
    trials: list[Trial] = []

    def tried(drawn: Mapping[str, Any]) -> float | None:
        params = {**spec.params, **drawn}
        value = _value(trainer, rows, replace(spec, params=params), validation)
        trials.append(Trial(params=params, value=value))
        return value

    tried({})
    _study(spec, declared, tried)
    best = _best(spec, trials)
    return SearchResult(params=trials[best].params, metric=spec.gate.metric, trials=tuple(trials), best=best)


def _study(spec: ModelSpec, declared: Search, tried: Callable[[Mapping[str, Any]], float | None]) -> None:
    """Try what Optuna draws until the trials or the seconds are used up."""
    optuna = _optuna(spec)

    def objective(trial: Draw) -> float:
        value = tried({name: _drawn(trial, declared, name) for name in declared.space})
        if value is None:
            raise optuna.TrialPruned
        return value

    direction = "minimize" if spec.gate.metric in LOWER_IS_BETTER else "maximize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=spec.seed))
    study.optimize(objective, n_trials=declared.trials, timeout=declared.seconds)


def _optuna(spec: ModelSpec) -> ModuleType:
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError as error:
        fix = "install skewless with the extra 'search'"
        raise DefinitionError(f"model {spec.name!r} search", "needs Optuna", value=str(error), fix=fix) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _drawn(trial: Draw, declared: Search, name: str) -> Any:  # noqa: ANN401 - of the space
    space = declared.space[name]
    if "choices" in space:
        return trial.suggest_categorical(name, space["choices"])
    low, high = space["low"], space["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, low, high, log=name in declared.log)


def _value(trainer: Trainer, rows: TrainingSet, spec: ModelSpec, validation: TrainingSet) -> float | None:
    scores = trainer.train(rows, spec, validation).score(validation.matrix)
    weights, groups = validation.weights, validation.groups
    return gate_metric(spec, evaluate(validation.labels, scores, weights, task=spec.task, groups=groups))


def _best(spec: ModelSpec, trials: Sequence[Trial]) -> int:
    sign = -1.0 if spec.gate.metric in LOWER_IS_BETTER else 1.0
    found = [(sign * trial.value, -number) for number, trial in enumerate(trials) if trial.value is not None]
    if not found:
        raise SourceError(
            f"labels of model {spec.name!r}",
            f"have no {spec.gate.metric} on the validation rows",
            fix="lengthen Split.validation, or choose another metric",
        )
    return -max(found)[1]
