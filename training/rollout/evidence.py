"""The evidence of a rollout: each arm's counts under the current policy, its recent counts, and its quality.

Recent counts are judged separately, because a problem that starts after an hour of good requests takes long to show
in the total.
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

    def widen(self, factor: float) -> Estimate:
        """Return the estimate with an interval that is ``factor`` times as wide."""
        low, high = (self.value + factor * (end - self.value) for end in (self.low, self.high))
        return Estimate(value=self.value, low=low, high=high)


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
