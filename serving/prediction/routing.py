"""Requests to one model, independent of their transport, and the routing of their rows to model versions.

A request whose rows are served by several versions is split by version, and merged again for the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from skewless.contract.errors import PackageError, SkewlessError
from skewless.contract.traffic import TrafficPolicy, entity_position
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.rollout.counts import PolicyCounts, RolloutCounts
from skewless.infra.platform.telemetry.trace import Trace
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.scored_batch import ScoredSlice

_RULES = ("missing", "log", "bounds", "classes", "decisions", "policy", "explore")  # of a spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of a request.

    Args:
        as_of: evaluation time, microseconds; None: now.
        max_age_us: rows older than this are stale, whatever their view allows; None: the view's limit applies.
        deadline: time at which the reply becomes useless, on the event loop's clock; None: no deadline.
        extras: further results to return, of ``EXTRAS``.
    """

    as_of: int | None = None
    max_age_us: int | None = None
    deadline: float | None = None
    extras: tuple[str, ...] = ()


NO_OPTIONS = Options()


class ScoringRequest(NamedTuple):
    """One request of n rows to one model: entity keys, whose features are read from the store, or complete vectors.

    Args:
        model: the version that scores.
        n: number of rows.
        rows: each as received, plain JSON values, for the prediction log.
        columns: n values, in the plan's types, for each join key and request feature; None: the request has vectors.
        vectors: float64, C-contiguous, shape ``(n, n_features)``; None: the request has entity keys.
        options: options of the request.
        routing: distributes entities over versions; None: ``model`` scores all rows.
        arm: role of ``model`` under a traffic policy; None: the request was not routed.
        narrow: whether a float64 input arrived as a float of fewer bits, which the spec accepts.
        trace: receives the stages of the request; None: it is not traced.
        request_id: of its caller; empty: there is none.
    """

    model: ServedModel
    n: int
    rows: Sequence[object]
    columns: Mapping[str, Sequence[Any]] | None = None
    vectors: Matrix | None = None
    options: Options = NO_OPTIONS
    routing: Routing | None = None
    arm: Arm | None = None
    narrow: bool = False
    trace: Trace | None = None
    request_id: bytes = b""

    def for_arm(self, arm: Arm) -> ScoringRequest:
        """Return the request to the version of an arm, which serves all rows."""
        # Not _replace: it takes three times as long, and nearly every request passes here.
        n, rows, columns, vectors, options = self.n, self.rows, self.columns, self.vectors, self.options
        return ScoringRequest(
            arm.model, n, rows, columns, vectors, options, None, arm, self.narrow, self.trace, self.request_id
        )


class RequestPart(NamedTuple):
    """The rows of a request that one version serves, and their indices in the request, ascending."""

    request: ScoringRequest
    rows: Sequence[int]


class Routing:
    """A traffic policy with its loaded versions.

    Args:
        models: by version.

    Raises:
        PackageError: a version has other inputs or outputs than the champion, or a sticky key is not an input.
    """

    def __init__(self, policy: TrafficPolicy, models: Mapping[str, ServedModel], metrics: Metrics) -> None:
        self.policy = policy
        champion = models[policy.champion]
        names = list(_inputs(champion))
        self._sticky = policy.sticky or tuple(column.name for column in champion.plan.join_keys)
        for name in self._sticky:
            if name not in names:
                raise PackageError(
                    f"traffic of model {champion.name!r}",
                    "has a sticky key that is not an input",
                    value=name,
                    fix=f"use {', '.join(names)}",
                )
        for model in models.values():
            _check_interface(champion, model)
        serving, shadows = _split_versions(policy)
        self._shadows = tuple(Arm(models[version], "shadow", policy.number, metrics) for version in shadows)
        self._champion = Arm(champion, "champion", policy.number, metrics, self._shadows)
        self._challenger = None
        if serving is not None:
            model = models[serving]
            lead = self._champion if _has_same_rules(champion, model) else None
            self._challenger = Arm(model, "challenger", policy.number, metrics, self._shadows, lead)

    @property
    def has_one_version(self) -> bool:
        """Whether the champion serves all rows."""
        return self._challenger is None

    @property
    def has_same_features(self) -> bool:
        """Whether all serving versions have the features and views of the champion, so that one tensor fits all."""
        challenger = self._challenger
        return challenger is None or _features_of(challenger.model) == _features_of(self._champion.model)

    def split(self, request: ScoringRequest) -> list[RequestPart]:
        """Return one part for each version that serves rows of a request with entity keys, by its sticky keys."""
        columns, n = request.columns, request.n
        if columns is None or self._challenger is None or n == 1:
            return [RequestPart(self.route(request), range(n))]
        rows: dict[Arm, list[int]] = {}
        for i, values in enumerate(zip(*(columns[name] for name in self._sticky), strict=True)):
            rows.setdefault(self._arm_of(values), []).append(i)
        return [RequestPart(_select_rows(request, columns, arm, indices), indices) for arm, indices in rows.items()]

    def route(self, request: ScoringRequest) -> ScoringRequest:
        """Return the request to the version that serves its first row: ``split`` of a request of one row."""
        columns = request.columns
        if self._challenger is None:
            return request.for_arm(self._champion)
        if columns is None:
            raise TypeError(request)  # a vector has no sticky keys to route by
        return request.for_arm(self._arm_of([columns[name][0] for name in self._sticky]))

    def read_counts(self, at_us: int) -> PolicyCounts:
        """Return the counts of all versions up to now."""
        versions: dict[str, RolloutCounts] = {}
        for arm in (self._champion, self._challenger, *self._shadows):
            if arm is not None:
                version = arm.model.version
                versions[version] = versions.get(version, RolloutCounts()) + arm.counts.read_counts(at_us)
        return PolicyCounts(self.policy.number, versions)

    def _arm_of(self, values: Sequence[object]) -> Arm:
        # The salt is constant during a rollout, so a larger share only adds entities to the challenger.
        if self._challenger is not None and entity_position(self.policy.salt, values) < self.policy.share:
            return self._challenger
        return self._champion


class MergedSlices(NamedTuple):
    """Scores of several versions for one request.

    Args:
        parts: one slice for each version.
        rows: for each part, the indices of its rows in the request.
    """

    parts: Sequence[ScoredSlice]
    rows: Sequence[Sequence[int]]

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return sum(part.n for part in self.parts)

    @property
    def t(self) -> int:
        """Evaluation time, microseconds; the latest, if a deadline made some parts differ."""
        return max(part.t for part in self.parts)

    @property
    def degraded(self) -> bool:
        """Whether a view did not answer and nulls were scored, in at least one part."""
        return any(part.degraded for part in self.parts)

    @property
    def narrow(self) -> bool:
        """Whether float64 inputs arrived as floats of fewer bits."""
        return any(part.narrow for part in self.parts)


ReplyCallback = Callable[[ScoredSlice | MergedSlices | SkewlessError], None]


def collect_slices(
    rows: Sequence[Sequence[int]], on_reply: ReplyCallback
) -> list[Callable[[ScoredSlice | SkewlessError], None]]:
    """Return a callback for each part of a request; the first error becomes the reply to the complete request.

    Args:
        rows: for each part, the indices of its rows.
        on_reply: called once, with the merged scores or the error.
    """
    parts: dict[int, ScoredSlice] = {}
    is_done = False

    def add_part(i: int, outcome: ScoredSlice | SkewlessError) -> None:
        nonlocal is_done
        if is_done:
            return
        if isinstance(outcome, SkewlessError):
            is_done = True
            on_reply(outcome)
            return
        parts[i] = outcome
        if len(parts) == len(rows):
            is_done = True
            on_reply(MergedSlices([parts[index] for index in range(len(rows))], rows))

    return [partial(add_part, i) for i in range(len(rows))]


def _select_rows(
    request: ScoringRequest, columns: Mapping[str, Sequence[Any]], arm: Arm, rows: Sequence[int]
) -> ScoringRequest:
    if len(rows) == request.n:
        return request.for_arm(arm)
    pick = itemgetter(*rows) if len(rows) > 1 else lambda values: (values[rows[0]],)
    return request._replace(
        model=arm.model,
        n=len(rows),
        rows=list(pick(request.rows)),
        columns={name: list(pick(values)) for name, values in columns.items()},
        arm=arm,
        routing=None,
    )


def _split_versions(policy: TrafficPolicy) -> tuple[str | None, list[str]]:
    """Return the version that serves a share, and the shadow versions."""
    shadows = list(dict.fromkeys(policy.shadows))
    if policy.phase != "shadow" or policy.challenger is None:
        return None if policy.phase == "champion" else policy.challenger, shadows
    return None, list(dict.fromkeys([policy.challenger, *shadows]))


def _check_interface(champion: ServedModel, model: ServedModel) -> None:
    for problem, actual, expected in (
        ("has other inputs", _inputs(model), _inputs(champion)),
        ("has other outputs", _outputs(model), _outputs(champion)),
    ):
        if actual != expected:
            raise PackageError(
                f"model {model.name!r} {model.version}",
                f"{problem} than the champion {champion.version}, whose callers it would serve",
                value=actual,
                fix="promote it at once instead, and change the callers",
            )


def _has_same_rules(champion: ServedModel, model: ServedModel) -> bool:
    """Return whether two versions differ only in their scores: one batch can have rows of both."""
    one, other = champion.package, model.package
    return (one.plan, one.bounds) == (other.plan, other.bounds) and all(
        getattr(one.spec, name) == getattr(other.spec, name) for name in _RULES
    )


def _inputs(model: ServedModel) -> dict[str, str]:
    return {column.name: str(column.dtype) for column in (*model.plan.join_keys, *model.plan.request)}


def _outputs(model: ServedModel) -> tuple[int, tuple[str, ...], bool]:
    spec = model.package.spec
    return model.runtime.n_outputs, tuple(spec.classes), bool(spec.actions)


def _features_of(model: ServedModel) -> tuple[tuple[str, ...], list[str]]:
    return tuple(model.assembler.labels), [view.name for view in model.plan.all_views]
