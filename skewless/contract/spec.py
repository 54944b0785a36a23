"""The spec of a model: what a user declares in addition to Feast's objects, as frozen, validated, plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

from skewless.contract.actions import Explore
from skewless.contract.errors import DefinitionError
from skewless.contract.labels import AnyLabels
from skewless.contract.lifecycle import BoundsPolicy, Rollout, Search, Triggers, Watch
from skewless.contract.names import check_name
from skewless.contract.plain_record import build_record, plain_value
from skewless.contract.policy import Policy

ALGORITHMS = ("lightgbm", "xgboost")
Algorithm = str
Task = Literal["binary", "regression", "multiclass", "ranking"]
TimeMode = Literal["knowledge", "event_time"]
LogPolicy = Literal["best_effort", "required"]
MissingPolicy = Literal["null", "refuse"]
Device = Literal["auto", "cpu", "cuda"]
_CHOICES = {
    "task": Task,
    "time_mode": TimeMode,
    "missing": MissingPolicy,
    "log": LogPolicy,
    "device": Device,
    "bounds": BoundsPolicy,
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split by time: training, then an embargo, then the test period at the end of the data.

    Rows whose label became known after the start of the test period are not used for training.
    """

    test: timedelta
    embargo: timedelta = timedelta(0)
    validation: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Check the durations."""
        if self.test <= timedelta(0):
            raise DefinitionError(
                "Split.test", "is not above zero", value=str(self.test), fix="give a length above zero"
            )
        for name in ("embargo", "validation"):
            if getattr(self, name) < timedelta(0):
                raise DefinitionError(
                    f"Split.{name}", "is below zero", value=str(getattr(self, name)), fix="give a length of 0 or more"
                )


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate that a new version must pass to become champion.

    Args:
        metric: name of a metric of the evaluation, higher is better (``auc``) unless in
            ``skewless.contract.metrics``.
        floor: limit of the metric: the least value, or the greatest if lower is better; None: no limit.
        tolerance: how much worse than the champion the version may be on the same rows.
        confidence: level of the bootstrap interval of the gain, whose lower end is compared; None: compare the gain.
        slice_tolerance: how much worse than the champion the version may be in each value of ``ModelSpec.slices``.
        beat_baseline: whether the metric must be better than that of a constant prediction on the same rows.
    """

    metric: str = "auc"
    floor: float | None = None
    tolerance: float = 0.0
    confidence: float | None = None
    slice_tolerance: float = 0.02
    beat_baseline: bool = True

    def __post_init__(self) -> None:
        """Check the confidence and the tolerances."""
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise DefinitionError(
                "Gate.confidence", "is not between 0 and 1", value=self.confidence, fix="give 0.95, or None"
            )
        for name in ("tolerance", "slice_tolerance"):
            if getattr(self, name) < 0:
                raise DefinitionError(f"Gate.{name}", "is below zero", value=getattr(self, name), fix="give 0 or more")


_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: its features, labels, training, gate and rollout.

    Args:
        name: the model's name in URLs and packages.
        service: name of the Feast FeatureService with the model's features, in order.
        labels: the label table, or the outcomes of predictions.
        algorithm: the library that trains the model: one of ``ALGORITHMS``, or one that an installed package
            registers in the entry point groups ``skewless.trainers`` and ``skewless.runtimes``.
        task: the kind of prediction.
        classes: names of the labels 0, 1, ... of a multiclass model.
        group: of a ranking model, the key or request field whose equal values form one query.
        decisions: decision -> its lowest score; the decision with the highest reached score applies.
        policy: gives the action about a score, in place of ``decisions``; None: no policy.
        explore: a share of the predictions that gets one action, whatever the score; None: no exploration.
        horizon: time from the prediction to ``labels.event_time``.
        split: the split by time.
        params: parameters of the library, passed on unchanged.
        rounds: number of boosting rounds.
        class_weight: weight of positive rows (1.0: none).
        gate: the gate for new versions.
        time_mode: the rows that training may read (SEMANTICS 2.6).
        missing: missing policy while a view is UNAVAILABLE: score with nulls (degraded) or refuse the request.
        log: whether a reply waits for its row in the prediction log (SEMANTICS 7.4).
        tolerance: largest difference of margins at which a runtime is accepted; 0: bit-equal.
        accept_float32: accept float32 for a float64 and flag it in reply and log (SEMANTICS 6.2); else reject it.
        device: where to train and score: ``auto``: on a GPU if there is one and it is faster; ``cpu``: on the CPU only;
            ``cuda``: as ``auto``, with a warning and a metric if no GPU exists.
        retrain: cron expression for the scheduler, if any.
        slices: join keys or request fields; a new version must not be worse in any of their values.
        bounds: how the server treats values outside the bounds from the suites of the training data.
        rollout: how a version that passed its gate gets the traffic; None: at once.
        watch: how live requests are compared with the training data.
        triggers: conditions that retrain the model.
        search: a search for better parameters before training, if any.
        seed: seed of all randomness.
    """

    name: str
    service: str
    labels: AnyLabels
    algorithm: Algorithm
    split: Split
    task: Task = "binary"
    classes: tuple[str, ...] = ()
    group: str | None = None
    decisions: Mapping[str, float] = field(default_factory=dict)
    policy: Policy | None = None
    explore: Explore | None = None
    horizon: timedelta = timedelta(0)
    params: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 200
    class_weight: float = 1.0
    gate: Gate = Gate()
    time_mode: TimeMode = "knowledge"
    missing: MissingPolicy = "null"
    log: LogPolicy = "best_effort"
    tolerance: float = 0.0
    accept_float32: bool = False
    device: Device = "auto"
    retrain: str | None = None
    slices: tuple[str, ...] = ()
    bounds: BoundsPolicy = "flag"
    rollout: Rollout | None = None
    watch: Watch = field(default_factory=Watch)
    triggers: Triggers = field(default_factory=Triggers)
    search: Search | None = None
    seed: int = 7

    def __post_init__(self) -> None:
        """Check all fields; convert parameters to plain JSON values, so that stored specs compare equal."""
        object.__setattr__(self, "params", plain_value(self.params))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "slices", tuple(self.slices))
        check_name("ModelSpec.name", self.name)
        if not _NAME.fullmatch(self.algorithm):
            raise self._invalid("algorithm", "is not a name", self.algorithm, f"use one of {', '.join(ALGORITHMS)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise self._invalid(
                    name, "is unknown", getattr(self, name), f"use one of {', '.join(get_args(choices))}"
                )
        if self.rounds < 1:
            raise self._invalid("rounds", "is below 1", self.rounds, "give 1 or more")
        if self.horizon < timedelta(0):
            raise self._invalid("horizon", "is below zero", str(self.horizon), "give a length of 0 or more")
        self._check_classes()
        self._check_group()
        self._check_decisions()
        if self.policy is not None and (self.decisions or self.task == "multiclass"):
            fix = "remove the decisions" if self.decisions else "remove the policy: a decision is the likeliest class"
            raise self._invalid("policy", "does not fit decisions", None, fix)
        if self.explore is not None and self.explore.action not in self.actions:
            names = ", ".join(self.actions) or "none"
            fix = f"name a decision of the model: {names}"
            raise self._invalid("explore", "has an action that is not a decision", self.explore.action, fix)
        object.__setattr__(self, "decisions", dict(sorted(self.decisions.items(), key=lambda item: item[1])))

    @property
    def actions(self) -> tuple[str, ...]:
        """Return what may be done about a score: actions of the policy, or names of the decisions."""
        return tuple(self.decisions) if self.policy is None else self.policy.actions

    def _check_classes(self) -> None:
        if self.task != "multiclass":
            if self.classes:
                raise self._invalid("classes", f"do not fit a {self.task} model", self.classes, "remove them")
            return
        named = all(_is_text(name) for name in self.classes)
        if not named or len(set(self.classes)) != len(self.classes) or len(self.classes) < _FEWEST_CLASSES:
            raise self._invalid(
                "classes", "are not at least two different names", self.classes, "name the labels 0, 1, ... in order"
            )

    def _check_group(self) -> None:
        if (self.group is not None) != (self.task == "ranking"):
            fix = "name the key or request field that identifies a query" if self.task == "ranking" else "remove it"
            raise self._invalid("group", f"does not fit a {self.task} model", self.group, fix)

    def _check_decisions(self) -> None:
        if self.decisions and self.task == "multiclass":
            raise self._invalid(
                "decisions", "do not fit a multiclass model", None, "remove them: its decision is its likeliest class"
            )
        for name, lowest in self.decisions.items():
            if not (_is_text(name) and _is_number(lowest)):
                raise self._invalid("decisions", "are not names with a finite number", {name: lowest}, "correct it")
        if len(set(self.decisions.values())) != len(self.decisions):
            raise self._invalid(
                "decisions", "have equal lowest scores", dict(self.decisions), "give each another number"
            )

    def _invalid(self, name: str, problem: str, value: object, fix: str) -> DefinitionError:
        return DefinitionError(f"model {self.name!r} {name}", problem, value=value, fix=fix)

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON values; durations are microseconds.

        What is None is omitted, so that a release without a field can read a spec that does not use it.
        """
        return {key: plain_value(value) for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Build a spec from the result of ``as_dict``."""
        return build_record(cls, data)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
