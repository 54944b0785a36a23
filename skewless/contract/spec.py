"""What a user declares about a model, beside Feast's own objects: frozen, validated, plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal

from skewless.contract.errors import DefinitionError
from skewless.contract.lifecycle import BoundsPolicy, Rollout, Search, Triggers, Watch, rebuilt, rollout_from
from skewless.contract.names import check_name

ALGORITHMS = ("lightgbm", "xgboost", "sklearn")
TASKS = ("binary", "regression", "multiclass", "ranking")
Algorithm = str
Task = Literal["binary", "regression", "multiclass", "ranking"]
TimeMode = Literal["knowledge", "event_time"]
LogPolicy = Literal["best_effort", "required"]
MissingPolicy = Literal["null", "refuse"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A table with one row per thing to predict: its keys, request fields, label and times.

    Args:
        path: Parquet file, folder or glob, relative to the repo.
        event_time: column with the moment that the prediction is about.
        known_time: column with the moment when the label became known; null where it never did.
        label: column with the label; rows without one are counted and left out.
        weight: column with a sample weight, if any.
        columns: name in the plan (join key or request field) -> column here, where they differ.
        tolerance: how far a logged prediction may be from the moment it should have been asked at (event time less
            horizon) to be the one that a label, or feedback by entity, is about.
    """

    path: str
    event_time: str
    known_time: str
    label: str
    weight: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    tolerance: timedelta = timedelta(minutes=5)

    def column(self, name: str) -> str:
        """Return the column that holds a join key or request field."""
        return self.columns.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split by time: train, then an embargo, then the test period, which ends the data.

    Rows whose label became known after the test period began never train.
    """

    test: timedelta
    embargo: timedelta = timedelta(0)
    validation: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Refuse lengths below zero and an empty test period."""
        _positive("Split.test", self.test)
        for name in ("embargo", "validation"):
            if getattr(self, name) < timedelta(0):
                raise DefinitionError(
                    f"Split.{name}", "is below zero", value=str(getattr(self, name)), fix="give a length of 0 or more"
                )


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a new model must reach before the alias moves to it.

    Args:
        metric: name of a metric of the evaluation, higher is better (``auc``) unless in
            ``skewless.contract.metrics``.
        floor: the metric must be at least this (at most, where lower is better), if given.
        tolerance: how much worse than the champion, on the same rows, is still accepted.
        confidence: of the bootstrap interval of the gain, whose lower end then counts; None: the gain itself.
        slice_tolerance: how much worse than the champion is still accepted in a value of ``ModelSpec.slices``.
        beat_baseline: whether the metric must be better than that of a constant prediction on the same rows.
    """

    metric: str = "auc"
    floor: float | None = None
    tolerance: float = 0.0
    confidence: float | None = None
    slice_tolerance: float = 0.02
    beat_baseline: bool = True

    def __post_init__(self) -> None:
        """Refuse a confidence that is none, and tolerances below zero."""
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
    """Everything that makes a model reproducible from the feature store.

    Args:
        name: the model's name in URLs and packages.
        service: the Feast FeatureService with its features, in order.
        labels: where labels, keys and request fields come from.
        algorithm: the library that trains it: one of ``ALGORITHMS``, or what an installed package
            registers in the entry point groups ``skewless.trainers`` and ``skewless.runtimes``.
        task: what it predicts.
        classes: names of the labels 0, 1, ... of a multiclass model.
        group: of a ranking model the key or request field whose equal values form one query.
        decisions: name -> lowest score that means it; the last one reached holds. Kept in rising order.
        horizon: how long before ``labels.event_time`` the prediction is asked.
        split: the split by time.
        params: parameters of the library, passed on as they are.
        rounds: number of boosting rounds.
        class_weight: weight of positive rows (1.0: none).
        gate: what a new version must reach.
        time_mode: which rows training may see (SEMANTICS 2.6).
        missing: what to do when a view is UNAVAILABLE: score nulls (flagged) or refuse.
        log: whether a reply waits for its prediction log row (SEMANTICS 7.4).
        tolerance: largest margin difference at which a runtime is still accepted; 0: bit-equal.
        accept_float32: take float32 for a float64 and say so in reply and log (SEMANTICS 6.2); else it is refused.
        device: where it is trained and scored: ``auto``: also on a GPU where there is one and it is faster, ``cpu``:
            nowhere else, ``cuda``: as ``auto``, and a GPU is missed, said and counted where there is none.
        retrain: cron expression for the scheduler, if any.
        slices: join keys or request fields; in no value of one may a new version lose what it wins elsewhere.
        bounds: what the server does with values outside the bounds that the suites of training data declare.
        rollout: how a version that passed its gate takes over; None: at once.
        watch: what is compared with the training data.
        triggers: what else retrains the model.
        search: a search for better parameters before training, if any.
        seed: seed of everything random.
    """

    name: str
    service: str
    labels: LabelSource
    algorithm: Algorithm
    split: Split
    task: Task = "binary"
    classes: tuple[str, ...] = ()
    group: str | None = None
    decisions: Mapping[str, float] = field(default_factory=dict)
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
        """Refuse what cannot be trained or named; parameters become what JSON keeps of them."""
        object.__setattr__(self, "params", _plain(self.params))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "slices", tuple(self.slices))
        check_name("ModelSpec.name", self.name)
        if not _NAME.fullmatch(self.algorithm):
            raise self._refusal("algorithm", "is not a name", self.algorithm, f"use one of {', '.join(ALGORITHMS)}")
        _choice(self.name, "task", self.task, TASKS)
        _choice(self.name, "time_mode", self.time_mode, ("knowledge", "event_time"))
        _choice(self.name, "missing", self.missing, ("null", "refuse"))
        _choice(self.name, "log", self.log, ("best_effort", "required"))
        _choice(self.name, "device", self.device, ("auto", "cpu", "cuda"))
        _choice(self.name, "bounds", self.bounds, ("off", "flag", "refuse"))
        if self.rounds < 1:
            raise DefinitionError(f"model {self.name!r} rounds", "is below 1", value=self.rounds, fix="give 1 or more")
        if self.horizon < timedelta(0):
            raise DefinitionError(
                f"model {self.name!r} horizon",
                "is below zero",
                value=str(self.horizon),
                fix="give a length of 0 or more",
            )
        self._check_classes()
        self._check_group()
        self._check_decisions()
        object.__setattr__(self, "decisions", dict(sorted(self.decisions.items(), key=lambda item: item[1])))

    def _check_classes(self) -> None:
        if self.task != "multiclass":
            if self.classes:
                raise self._refusal("classes", f"belong to no {self.task} model", self.classes, "leave them out")
            return
        named = all(_is_text(name) for name in self.classes)
        if not named or len(set(self.classes)) != len(self.classes) or len(self.classes) < _FEWEST_CLASSES:
            raise self._refusal(
                "classes", "are not at least two different names", self.classes, "name the labels 0, 1, ... in order"
            )

    def _check_group(self) -> None:
        if (self.group is not None) != (self.task == "ranking"):
            fix = "name the key or request field that tells queries apart" if self.task == "ranking" else "leave it out"
            raise self._refusal("group", f"does not fit a {self.task} model", self.group, fix)

    def _check_decisions(self) -> None:
        if self.decisions and self.task == "multiclass":
            raise self._refusal(
                "decisions", "belong to no multiclass model", None, "its decision is its likeliest class"
            )
        for name, lowest in self.decisions.items():
            if not (_is_text(name) and _is_number(lowest)):
                raise self._refusal("decisions", "are not names with a finite number", {name: lowest}, "correct it")
        if len(set(self.decisions.values())) != len(self.decisions):
            raise self._refusal(
                "decisions", "have equal lowest scores", dict(self.decisions), "give each its own number"
            )

    def _refusal(self, name: str, problem: str, value: object, fix: str) -> DefinitionError:
        return DefinitionError(f"model {self.name!r} {name}", problem, value=value, fix=fix)

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON values; times are microseconds."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Build a spec from what ``as_dict`` returned."""
        values = dict(data)
        values["labels"] = rebuilt(LabelSource, values["labels"], ("tolerance",))
        values["split"] = Split(**{key: timedelta(microseconds=us) for key, us in values["split"].items()})
        values["gate"] = Gate(**values["gate"])
        values["horizon"] = timedelta(microseconds=values["horizon"])
        values["rollout"] = rollout_from(values.get("rollout"))
        values["watch"] = rebuilt(Watch, values.get("watch"), ("window",)) or Watch()
        values["triggers"] = rebuilt(Triggers, values.get("triggers"), ("age", "cooldown")) or Triggers()
        values["search"] = rebuilt(Search, values.get("search"))
        return cls(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _positive(name: str, value: timedelta) -> None:
    if value <= timedelta(0):
        raise DefinitionError(name, "is not above zero", value=str(value), fix="give a length above zero")


def _choice(model: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise DefinitionError(
            f"model {model!r} {name}", "is unknown", value=value, fix=f"use one of {', '.join(allowed)}"
        )
