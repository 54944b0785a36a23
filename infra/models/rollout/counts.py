"""The servers' counts of each version under a traffic policy, which the rollout controller reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from skewless.contract.score_differences import ScoreDifferences
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState

Age = Literal["older", "newer"]
LATENCY_EDGES = (*(0.0005 * 2 ** (step / 4) for step in range(57)),)  # 0.5 ms to 8 s, four a doubling


class Histogram(NamedTuple):
    """A histogram of values.

    Args:
        edges: upper edges, ascending; a value at an edge belongs to the bucket below it.
        counts: per bucket, one more than edges: the last bucket is open.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def n(self) -> int:
        """Return the number of values."""
        return sum(self.counts)

    def quantile(self, at: float) -> float:
        """Return the upper edge of a quantile's bucket; NaN without values, infinity in the last bucket.

        >>> Histogram((1.0, 2.0), (9, 1, 0)).quantile(0.99)
        2.0
        """
        if not self.n:
            return float("nan")
        bucket = int(np.searchsorted(np.cumsum(self.counts), at * self.n))
        return self.edges[bucket] if bucket < len(self.edges) else float("inf")

    def plus(self, other: Histogram) -> Histogram:
        """Return the sum of two histograms; a histogram without edges is empty."""
        if not self.edges or not other.edges:
            return self if self.edges else other
        return Histogram(self.edges, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


def score_edges() -> tuple[float, ...]:
    """Return bucket edges that suit scores of any scale: ten per decade, both signs, and 40 steps from 0 to 1.

    They are the same for all models, so that versions can be compared. A small sample fills few of them: merge
    neighbouring buckets before you compare shares.
    """
    sizes = [10 ** (step / 10) for step in range(-60, 91)]
    linear = [step / 40 for step in range(41)]
    return tuple(sorted({*sizes, *(-size for size in sizes), *linear}))


_EMPTY = Histogram((), ())


@dataclass(frozen=True, kw_only=True)
class RolloutCounts:
    """Counts of one version under one policy, in all its roles.

    Args:
        requests: requests that it handled, failed requests included; a part of a split request counts as a request.
        failed: requests that failed in the server or missed their deadline; errors of callers are not counted.
        rows: rows that it scored.
        latency: seconds of served requests; empty for a shadow.
        scores: scores of rows; the largest of several outputs.
        missing: feature values that were NaN.
        values: all feature values.
        by_status: per view, rows by the name of their status.
        differences: differences of a shadow's scores from the served scores.
        at_us: time of the last count, microseconds; 0: there is none.
    """

    requests: int = 0
    failed: int = 0
    rows: int = 0
    latency: Histogram = _EMPTY
    scores: Histogram = _EMPTY
    missing: int = 0
    values: int = 0
    by_status: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    differences: ScoreDifferences = field(default_factory=ScoreDifferences)
    at_us: int = 0

    def __add__(self, other: RolloutCounts) -> RolloutCounts:
        """Return the sum of two servers' counts."""
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("requests", "failed", "rows", "missing", "values", "differences")
        }
        return RolloutCounts(
            **sums,
            latency=self.latency.plus(other.latency),
            scores=self.scores.plus(other.scores),
            by_status=_add_statuses(self.by_status, other.by_status),
            at_us=max(self.at_us, other.at_us),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return vars(self) | {"differences": vars(self.differences) | {"pairs": self.differences.pairs.tolist()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RolloutCounts:
        """Return the counts that ``as_dict`` encoded."""
        pairs = np.array(data["differences"]["pairs"], dtype=np.float64).reshape(-1, 2)
        histograms = {name: Histogram(*map(tuple, data[name])) for name in ("latency", "scores")}
        return cls(**{**data, **histograms, "differences": ScoreDifferences(**data["differences"] | {"pairs": pairs})})


class PolicyCounts(NamedTuple):
    """One server's counts of a model since it loaded the policy, by version."""

    policy: int
    versions: Mapping[str, RolloutCounts]


def read_counts(state: ProjectState, model: str, policy: int) -> dict[str, RolloutCounts]:
    """Return the counts of all server processes for a model under one policy, by version.

    Counts of processes that have ended are included, so that a restart of a server loses none. ``at_us`` is the age of
    the counts: up to 2 s while servers run.

    Args:
        state: the project's state, shared by all servers.
        policy: number of the policy; requests under other policies are not counted.
    """
    totals: dict[str, RolloutCounts] = {}
    for body in _counts(state).list_all().values():
        for version, counts in _decode_versions(body, model, policy).items():
            totals[version] = totals.get(version, RolloutCounts()) + counts
    return totals


def write_counts(state: ProjectState, process: str, models: Mapping[str, PolicyCounts]) -> None:
    """Replace the counts of a server process.

    Args:
        process: a name that no other process has, before or after.
        models: counts by model; empty: the counts are deleted.

    Raises:
        StoreError: the database is unavailable.
    """
    if models:
        _counts(state).put(process, _encode_models(models))
    else:
        _counts(state).delete(process)


def delete_old_counts(state: ProjectState, policies: Mapping[str, int]) -> None:
    """Delete counts of processes that have none under a current policy; running servers write theirs again.

    Args:
        policies: numbers of the current policies, by model.
    """
    for process, body in _counts(state).list_all().items():
        if not any(policies.get(model) == data["policy"] for model, data in body.items()):
            _counts(state).delete(process)


def read_earlier_counts(state: ProjectState, age: Age, model: str, policy: int) -> dict[str, RolloutCounts]:
    """Return the counts of all servers at an earlier check of a rollout, by version."""
    return _decode_versions(_earlier_counts(state).get(f"{age}/{model}") or {}, model, policy)


def write_earlier_counts(state: ProjectState, age: Age, model: str, counts: PolicyCounts) -> None:
    """Replace the counts at an earlier check of a rollout."""
    _earlier_counts(state).put(f"{age}/{model}", _encode_models({model: counts}))


def _counts(state: ProjectState) -> Documents:
    return Documents(state.database, "rollout_counts")


def _earlier_counts(state: ProjectState) -> Documents:
    return Documents(state.database, "earlier_rollout_counts")


def _encode_models(models: Mapping[str, PolicyCounts]) -> dict[str, Any]:
    return {
        model: {"policy": policy, "versions": {version: counts.as_dict() for version, counts in versions.items()}}
        for model, (policy, versions) in models.items()
    }


def _decode_versions(body: Mapping[str, Any], model: str, policy: int) -> dict[str, RolloutCounts]:
    data = body.get(model)
    if data is None or data["policy"] != policy:
        return {}
    return {version: RolloutCounts.from_dict(counts) for version, counts in data["versions"].items()}


def _add_statuses(
    one: Mapping[str, Mapping[str, int]], other: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    sums = {view: Counter(statuses) for view, statuses in one.items()}
    for view, statuses in other.items():
        sums.setdefault(view, Counter()).update(statuses)
    return {view: dict(counts) for view, counts in sums.items()}
