"""The evidence of a rollout: each arm's counts under the current policy, its recent counts, and its quality.

Recent counts are judged separately, because a problem that starts after an hour of good requests takes long to show
in the total. Labels come late, so quality is compared on the predictions of all policies of the rollout.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from math import hypot
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import ModelSpec, Task
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.rollout.counts import Histogram, RolloutCounts
from skewless.infra.models.runtimes.port import Scores, Vector
from skewless.training.rollout.sequential import MIN_UNITS, Losses, LossSummary
from skewless.validation.evaluation.interval import Interval
from skewless.validation.evaluation.metrics import row_values
from skewless.validation.live_quality import has_usable_label, live_quality, read_labels, read_scores

# Limits the log loss, because the mean is approximately normal only if no single loss dominates it.
_MIN_PROBABILITY = 1e-3
# Guardrails are judged every few seconds, so the 95 % intervals of live quality are widened to 99.99 %.
_INTERVAL_FACTOR = 3.8906 / 1.96


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MeanComparison:
    """The means of both arms, and a confidence interval of how much worse the challenger's is.

    Args:
        low: lower end of the interval; above zero: the challenger is worse.
        high: upper end.
    """

    champion: float
    challenger: float
    low: float
    high: float

    @classmethod
    def of(cls, champion: Estimate, challenger: Estimate, *, lower_is_better: bool) -> Self:
        """Combine the intervals of two independent arms (Zou and Donner, 2008).

        >>> two = Estimate(value=0.8, low=0.77, high=0.83), Estimate(value=0.7, low=0.66, high=0.74)
        >>> round(MeanComparison.of(*two, lower_is_better=False).low, 3)
        0.05
        """
        greater, less = (challenger, champion) if lower_is_better else (champion, challenger)
        worse = greater.value - less.value
        low = worse - hypot(greater.value - greater.low, less.high - less.value)
        high = worse + hypot(greater.high - greater.value, less.value - less.low)
        return cls(champion=champion.value, challenger=challenger.value, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All evidence for the next step of a rollout.

    Args:
        champion: the champion's counts under the current policy.
        challenger: the challenger's counts, shadow scores included.
        recent_champion: the champion's recent counts; None: unknown, or equal to all counts.
        recent_challenger: the challenger's recent counts.
        quality: the gate's metric on labelled predictions; None: too few.
        business: the mean business value of outcomes; None: too few.
        losses: losses of labelled predictions per arm, for an A/B test.
        problem: why the challenger cannot serve at all; empty: it can.
    """

    champion: RolloutCounts = field(default_factory=RolloutCounts)
    challenger: RolloutCounts = field(default_factory=RolloutCounts)
    recent_champion: RolloutCounts | None = None
    recent_challenger: RolloutCounts | None = None
    quality: MeanComparison | None = None
    business: MeanComparison | None = None
    losses: Losses | None = None
    problem: str = ""

    @property
    def requests(self) -> int:
        """Return the number of requests of the arm with fewer requests."""
        return min(self.champion.requests, self.challenger.requests)

    @property
    def recent(self) -> Evidence | None:
        """Return the recent evidence of both arms, without labels; None: recent counts are unknown."""
        if self.recent_champion is None or self.recent_challenger is None:
            return None
        return Evidence(champion=self.recent_champion, challenger=self.recent_challenger)


def counts_since(now: RolloutCounts, earlier: RolloutCounts) -> RolloutCounts | None:
    """Return the counts between two reads; None: a counter was reset meanwhile.

    >>> counts_since(RolloutCounts(requests=9, failed=4), RolloutCounts(requests=5, failed=4)).requests
    4
    """
    names = ("requests", "failed", "rows", "missing", "values")
    totals = {name: getattr(now, name) - getattr(earlier, name) for name in names}
    latency, scores = _subtract(now.latency, earlier.latency), _subtract(now.scores, earlier.scores)
    # The servers' files are not synced: after a power cut, counting starts again.
    if min(*totals.values(), *latency.counts, *scores.counts, 0) < 0:
        return None
    return RolloutCounts(**totals, latency=latency, scores=scores, at_us=now.at_us)


def _subtract(now: Histogram, earlier: Histogram) -> Histogram:
    if not earlier.edges:
        return now
    counts = now.counts or (0,) * len(earlier.counts)
    return Histogram(earlier.edges, tuple(a - b for a, b in zip(counts, earlier.counts, strict=True)))


def compare_labelled(rows: pa.Table, spec: ModelSpec, policy: TrafficPolicy, numbers: Collection[int]) -> Evidence:
    """Return quality, business value and losses of both arms of a rollout by the labels so far, without their counts.

    The challenger's served predictions count if any has a label; otherwise its shadow scores.

    Args:
        rows: the result of ``LabelledLog.read``.
        spec: the model's spec.
        policy: the current policy.
        numbers: numbers of all policies of the rollout.
    """
    # All policies of the rollout, not only the current: labels come late, and would miss a short step.
    rollout_rows = rows.filter(pc.is_in(rows["policy"], pa.array(sorted(numbers), pa.int64())))
    champion = rollout_rows.filter((pc.field("version") == policy.champion) & (pc.field("role") == "champion"))
    others = rollout_rows.filter(pc.field("version") == policy.challenger)
    served = others.filter(pc.field("role") == "challenger")
    has_labels = served["label"].null_count < served.num_rows
    challenger = served if has_labels else others.filter(pc.field("role") == "shadow")
    if not champion.num_rows or not challenger.num_rows:
        return Evidence()
    metric, arms = spec.gate.metric, [live_quality(rows, spec)[0] for rows in (champion, challenger)]
    return Evidence(
        quality=_compare(
            [(arm.units, arm.metric(metric), arm.interval) for arm in arms], lower_is_better=metric in LOWER_IS_BETTER
        ),
        business=_compare([(arm.valued, arm.value, arm.value_interval) for arm in arms], lower_is_better=False),
        losses=Losses(champion=_summarize_losses(champion, spec), challenger=_summarize_losses(challenger, spec)),
    )


def compute_losses(labels: Vector, scores: Scores, task: Task) -> Vector:
    """Return one loss per row: squared error, or log loss with probabilities clipped at 0.1 %; none for rankings.

    >>> compute_losses(np.array([1.0, 0.0]), np.array([1.0, 0.5]), "binary").round(3).tolist()
    [0.001, 0.693]
    """
    if task == "ranking":
        return np.empty(0)
    if task == "regression":
        return np.asarray(row_values("rmse", labels, scores))
    return np.asarray(row_values("log_loss", labels, np.clip(scores, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)))


def _compare(
    arms: Iterable[tuple[int, float | None, Interval | None]], *, lower_is_better: bool
) -> MeanComparison | None:
    """Return the comparison of both arms' means, each with its number of observations and its 95 % interval."""
    estimates = []
    for n, value, interval in arms:
        if n < MIN_UNITS or value is None or interval is None:
            return None
        low, high = (value + _INTERVAL_FACTOR * (end - value) for end in interval)
        estimates.append(Estimate(value=value, low=low, high=high))
    return MeanComparison.of(*estimates, lower_is_better=lower_is_better)


def _summarize_losses(rows: pa.Table, spec: ModelSpec) -> LossSummary:
    labels, scores = read_labels(rows), read_scores(rows)
    # A label outside the classes has no probability, and so no log loss.
    is_usable = has_usable_label(labels, scores, spec) & np.isfinite(labels)
    losses = compute_losses(labels[is_usable], scores[is_usable], spec.task)
    return LossSummary.of(losses, rows["unit"].to_numpy()[is_usable][: losses.size])
