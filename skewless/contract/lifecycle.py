"""How a model lives once it is trained: what is watched, what retrains it, how traffic moves; plain frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, TypeVar

from skewless.contract.errors import DefinitionError

BoundsPolicy = Literal["off", "flag", "refuse"]
RolloutKind = Literal["at_once", "canary", "ab"]
T = TypeVar("T")
_KINDS = ("at_once", "canary", "ab")


@dataclass(frozen=True, kw_only=True)
class Guardrails:
    """What sends traffic back to the champion; None: not looked at. All compare arms over the same time.

    Args:
        errors: share of an arm's requests that may fail beyond the champion's share.
        latency: how many times the champion's p99 the arm's may be, and how many times its median.
        score_shift: PSI between the arm's scores and the champion's.
        missing: share of feature values that may be missing beyond the champion's share.
        quality: how much worse the gate's metric may be on labelled predictions, by its confidence interval.
        business: how much lower the mean business value of an outcome may be, by its confidence interval.
        least_requests: requests of an arm below which nothing is judged but errors.
    """

    errors: float | None = 0.01
    latency: float | None = 3.0
    score_shift: float | None = 0.25
    missing: float | None = 0.05
    quality: float | None = 0.02
    business: float | None = None
    least_requests: int = 200

    def __post_init__(self) -> None:
        """Refuse limits below zero."""
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and value < 0:
                raise _refused(f"Guardrails.{item.name}", "is below zero", value, "give 0 or more, or None")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a version that passed its gate takes over.

    Args:
        kind: ``at_once``; ``canary``: more and more of the entities; ``ab``: a fixed share until a sequential test
            on delayed labels has decided.
        shadow: how long a new version is first scored beside the champion, its answers kept from callers.
        steps: shares of a canary before it has everything, rising.
        step: how long each share is held at least.
        share: the challenger's share in an A/B test.
        longest: end of an A/B test that has not decided: the champion stays.
        alpha: chance of a false decision of an A/B test.
        sticky: join keys or request fields whose values choose the arm; none: all of the service's join keys.
        guardrails: what sends traffic back.
    """

    kind: RolloutKind = "canary"
    shadow: timedelta = timedelta(0)
    steps: tuple[float, ...] = (0.01, 0.1, 0.5)
    step: timedelta = timedelta(hours=1)
    share: float = 0.5
    longest: timedelta = timedelta(days=28)
    alpha: float = 0.05
    sticky: tuple[str, ...] = ()
    guardrails: Guardrails = field(default_factory=Guardrails)

    def __post_init__(self) -> None:
        """Refuse unknown kinds, and shares that are none or do not rise."""
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "sticky", tuple(self.sticky))
        if self.kind not in _KINDS:
            raise _refused("Rollout.kind", "is unknown", self.kind, f"use one of {', '.join(_KINDS)}")
        shares = (*self.steps, self.share, self.alpha)
        if not all(0 < share < 1 for share in shares) or list(self.steps) != sorted(set(self.steps)):
            raise _refused("Rollout", "has shares that are not between 0 and 1, or do not rise", shares, "correct them")
        for name in ("shadow", "step", "longest"):
            if getattr(self, name) < timedelta(0):
                raise _refused(f"Rollout.{name}", "is below zero", str(getattr(self, name)), "give 0 or more")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is compared with the training data, and when a difference counts.

    Args:
        window: length of the live windows.
        psi: population stability index from which a feature has drifted, once chance alone does not explain it.
        js: the same of the Jensen-Shannon distance (base 2, 0 to 1); None: not looked at.
        ks: the same of the Kolmogorov-Smirnov distance; None: not looked at.
        alpha: how often a window without drift may be called one, all features together.
        least_rows: rows of a window below which nothing is said.
        share: share of the features that must have drifted for the model to have.
    """

    window: timedelta = timedelta(days=1)
    psi: float = 0.2
    js: float | None = None
    ks: float | None = None
    alpha: float = 0.01
    least_rows: int = 200
    share: float = 0.2

    def __post_init__(self) -> None:
        """Refuse empty windows and limits outside their range."""
        if self.window <= timedelta(0):
            raise _refused("Watch.window", "is not above zero", str(self.window), "give a length above zero")
        if not (0 < self.alpha < 1 and 0 < self.share <= 1 and self.psi > 0 and self.least_rows > 0):
            raise _refused("Watch", "has a limit outside its range", self, "correct it")


@dataclass(frozen=True, kw_only=True)
class Triggers:
    """What retrains a model besides its cron line; None: does not.

    Args:
        drift: whether drift of the model (``Watch``) does.
        quality: how much worse than at training the gate's metric must be on matured live labels.
        labels: labels that became known since the last training.
        age: how old the champion's training may be.
        cooldown: time between two retrainings that had a cause.
    """

    drift: bool = False
    quality: float | None = None
    labels: int | None = None
    age: timedelta | None = None
    cooldown: timedelta = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for better parameters (Optuna) before a model is trained, on its validation period.

    Args:
        space: parameter -> ``(lowest, highest)`` of whole or broken numbers, or a list of choices; kept as
            ``{"low": ..., "high": ...}`` or ``{"choices": [...]}``, which are taken too.
        trials: most trials.
        seconds: longest time in all.
        log: parameters that are drawn on a logarithmic scale.
    """

    space: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 20
    seconds: float = 600.0
    log: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an empty search."""
        object.__setattr__(self, "log", tuple(self.log))
        if not self.space or self.trials < 1 or self.seconds <= 0:
            raise _refused("Search", "has no parameters, trials or time", dict(self.space), "give each at least one")
        object.__setattr__(self, "space", {name: _range(name, given) for name, given in self.space.items()})


def _range(name: str, given: object) -> dict[str, Any]:
    """Return what a parameter is drawn from in the one form that JSON keeps.

    >>> _range("depth", (2, 8)), _range("booster", ["gbtree", "dart"])
    ({'low': 2, 'high': 8}, {'choices': ['gbtree', 'dart']})
    """
    if isinstance(given, tuple) and len(given) == len(("low", "high")):
        return _range(name, {"low": given[0], "high": given[1]})
    if isinstance(given, list) and given:
        return {"choices": list(given)}
    if isinstance(given, Mapping) and set(given) == {"choices"} and given["choices"]:
        return {"choices": list(given["choices"])}
    if isinstance(given, Mapping) and set(given) == {"low", "high"} and given["low"] < given["high"]:
        return dict(given)
    raise _refused(f"Search.space[{name!r}]", "is no range", given, "give (lowest, highest), or a list of choices")


def rebuilt(kind: type[T], data: Mapping[str, Any] | None, lengths: Iterable[str] = ()) -> T | None:
    """Return what plain values say; lengths of time are whole microseconds.

    >>> rebuilt(Triggers, {"age": 1_000_000}, ("age",)).age
    datetime.timedelta(seconds=1)
    """
    if data is None:
        return None
    values = dict(data)
    for name in lengths:
        if values.get(name) is not None:
            values[name] = timedelta(microseconds=values[name])
    return kind(**values)


def rollout_from(data: Mapping[str, Any] | None) -> Rollout | None:
    """Return a rollout from plain values."""
    if data is None:
        return None
    inner = {**data, "guardrails": Guardrails(**data["guardrails"])}
    return rebuilt(Rollout, inner, ("shadow", "step", "longest"))


def _refused(thing: str, problem: str, value: object, fix: str) -> DefinitionError:
    return DefinitionError(thing, problem, value=value, fix=fix)
