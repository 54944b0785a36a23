"""The settings of a model's life after training: rollout, guardrails, drift watch, triggers and parameter search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal

from skewless.contract.errors import DefinitionError

BoundsPolicy = Literal["off", "flag", "refuse"]
RolloutKind = Literal["at_once", "canary", "ab"]
_KINDS = ("at_once", "canary", "ab")


@dataclass(frozen=True, kw_only=True)
class Guardrails:
    """The limits that send traffic back to the champion; None: no limit. Arms are compared over the same time.

    Args:
        errors: share of an arm's requests that may fail in addition to the champion's share.
        latency: the arm's p99 and its median may be this many times the champion's.
        score_shift: PSI between the arm's scores and the champion's.
        missing: share of feature values that may be missing in addition to the champion's share.
        quality: how much worse the gate's metric may be on labelled predictions, by its confidence interval.
        business: how much lower the mean business value of an outcome may be, by its confidence interval.
        least_requests: with fewer requests of an arm, only errors are checked.
    """

    errors: float | None = 0.01
    latency: float | None = 3.0
    score_shift: float | None = 0.25
    missing: float | None = 0.05
    quality: float | None = 0.02
    business: float | None = None
    least_requests: int = 200

    def __post_init__(self) -> None:
        """Check that no limit is below zero."""
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and value < 0:
                raise _invalid(f"Guardrails.{item.name}", "is below zero", value, "give 0 or more, or None")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a version that passed its gate gets the traffic.

    Args:
        kind: ``at_once``; ``canary``: growing shares of the entities; ``ab``: a fixed share until a sequential test
            on delayed labels decides.
        shadow: how long a new version is a shadow first: scored, but its scores are not returned.
        steps: growing shares of a canary before it receives all traffic.
        step: shortest time at each share.
        share: the challenger's share in an A/B test.
        longest: longest time of an A/B test; without a decision by then the champion stays.
        alpha: chance of a false decision of an A/B test.
        sticky: join keys or request fields whose values choose the arm; none: all join keys of the service.
        guardrails: the limits that send traffic back.
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
        """Check the kind, the shares and the durations."""
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "sticky", tuple(self.sticky))
        if self.kind not in _KINDS:
            raise _invalid("Rollout.kind", "is unknown", self.kind, f"use one of {', '.join(_KINDS)}")
        shares = (*self.steps, self.share, self.alpha)
        if not all(0 < share < 1 for share in shares) or list(self.steps) != sorted(set(self.steps)):
            raise _invalid("Rollout", "has shares that are not between 0 and 1, or do not grow", shares, "correct them")
        for name in ("shadow", "step", "longest"):
            if getattr(self, name) < timedelta(0):
                raise _invalid(f"Rollout.{name}", "is below zero", str(getattr(self, name)), "give 0 or more")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How live requests are compared with the training data, and which differences are drift.

    Args:
        window: length of the live windows.
        psi: population stability index from which a feature has drifted, if chance does not explain it.
        js: the same for the Jensen-Shannon distance (base 2, 0 to 1); None: do not compute it.
        ks: the same for the Kolmogorov-Smirnov distance; None: do not compute it.
        alpha: share of windows without drift that may be reported as drift, over all features.
        least_rows: a window with fewer rows has no verdict.
        share: the model has drifted if at least this share of its features has.
    """

    window: timedelta = timedelta(days=1)
    psi: float = 0.2
    js: float | None = None
    ks: float | None = None
    alpha: float = 0.01
    least_rows: int = 200
    share: float = 0.2

    def __post_init__(self) -> None:
        """Check the window and the limits."""
        if self.window <= timedelta(0):
            raise _invalid("Watch.window", "is not above zero", str(self.window), "give a length above zero")
        if not (0 < self.alpha < 1 and 0 < self.share <= 1 and self.psi > 0 and self.least_rows > 0):
            raise _invalid("Watch", "has a limit outside its range", self, "correct it")


@dataclass(frozen=True, kw_only=True)
class Triggers:
    """The conditions that retrain a model, in addition to its cron expression; None: not a condition.

    Args:
        drift: retrain if the model has drifted (``Watch``).
        quality: retrain if the gate's metric on matured live labels is this much worse than at training.
        labels: retrain if this many labels became known since the last training.
        age: retrain if the champion's training is older than this.
        cooldown: shortest time between two retrainings by a condition.
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
        space: parameter -> ``(lowest, highest)`` as integers or floats, or a list of choices; stored as
            ``{"low": ..., "high": ...}`` or ``{"choices": [...]}``, which are accepted, too.
        trials: most trials.
        seconds: longest total time.
        log: parameters that are sampled on a logarithmic scale.
    """

    space: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 20
    seconds: float = 600.0
    log: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the search is not empty; normalize its space."""
        object.__setattr__(self, "log", tuple(self.log))
        if not self.space or self.trials < 1 or self.seconds <= 0:
            raise _invalid("Search", "has no parameters, trials or time", dict(self.space), "give at least one of each")
        object.__setattr__(self, "space", {name: _parse_range(name, value) for name, value in self.space.items()})


def _parse_range(name: str, value: object) -> dict[str, Any]:
    """Return a parameter's range or choices in the stored form.

    >>> _parse_range("depth", (2, 8)), _parse_range("booster", ["gbtree", "dart"])
    ({'low': 2, 'high': 8}, {'choices': ['gbtree', 'dart']})
    """
    if isinstance(value, tuple) and len(value) == len(("low", "high")):
        return _parse_range(name, {"low": value[0], "high": value[1]})
    if isinstance(value, list) and value:
        return {"choices": list(value)}
    if isinstance(value, Mapping) and set(value) == {"choices"} and value["choices"]:
        return {"choices": list(value["choices"])}
    if isinstance(value, Mapping) and set(value) == {"low", "high"} and value["low"] < value["high"]:
        return dict(value)
    raise _invalid(f"Search.space[{name!r}]", "is not a range", value, "give (lowest, highest), or a list of choices")


def _invalid(thing: str, problem: str, value: object, fix: str) -> DefinitionError:
    return DefinitionError(thing, problem, value=value, fix=fix)
