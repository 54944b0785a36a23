"""What a rollout is decided on: what each arm did since the policy in force began, and lately, and how good it was.

All that was counted is judged, and what is recent besides: what goes wrong after an hour of good requests would
otherwise take long to show in the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot
from typing import Self

from skewless.infra.rollout.counts import Histogram, RolloutCounts
from skewless.training.rollout.sequential import Losses


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float

    def widened(self, times: float) -> Estimate:
        """Return the same with both ends as many times as far away."""
        low, high = (self.value + times * (end - self.value) for end in (self.low, self.high))
        return Estimate(value=self.value, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class MeanComparison:
    """A mean of both arms and how much worse the challenger's is, with a confidence interval of that.

    Args:
        low: lower end of the interval; above zero: it is worse.
        high: upper end.
    """

    champion: float
    challenger: float
    low: float
    high: float

    @classmethod
    def of(cls, champion: Estimate, challenger: Estimate, *, lower_is_better: bool) -> Self:
        """Put the intervals of two independent arms together (Zou and Donner, 2008).

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
    """Everything that the next step of a rollout is decided on.

    Args:
        champion: what it did under the policy in force.
        challenger: the same, as a shadow too.
        recent_champion: what it did lately; None: the same, or not known.
        recent_challenger: the same of the challenger.
        quality: the gate's metric on labelled predictions; None: too few.
        business: the mean business value of outcomes; None: too few, or none are reported.
        losses: of labelled predictions per arm, for an A/B test.
        problem: why the challenger cannot answer at all; empty: nothing is known against it.
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
        """Return how many requests the arm with fewer of them has had."""
        return min(self.champion.requests, self.challenger.requests)

    @property
    def recent(self) -> Evidence | None:
        """Return the evidence of what both arms did lately, without labels; None: it is not known apart."""
        if self.recent_champion is None or self.recent_challenger is None:
            return None
        return Evidence(champion=self.recent_champion, challenger=self.recent_challenger)


def since(now: RolloutCounts, before: RolloutCounts) -> RolloutCounts | None:
    """Return what was counted between two looks; None: the counts began anew meanwhile.

    >>> since(RolloutCounts(requests=9, failed=4), RolloutCounts(requests=5, failed=4)).requests
    4
    """
    names = ("requests", "failed", "rows", "missing", "values")
    found = {name: getattr(now, name) - getattr(before, name) for name in names}
    latency, scores = _less(now.latency, before.latency), _less(now.scores, before.scores)
    if min(*found.values(), *latency.counts, *scores.counts, 0) < 0:
        return None
    return RolloutCounts(**found, latency=latency, scores=scores, at_us=now.at_us)


def _less(now: Histogram, before: Histogram) -> Histogram:
    if not before.edges:
        return now
    counts = now.counts or (0,) * len(before.counts)
    return Histogram(before.edges, tuple(a - b for a, b in zip(counts, before.counts, strict=True)))
