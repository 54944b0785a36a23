"""A sequential test, which may be read after every label: which of two versions has the lower mean loss?

A confidence sequence is valid at all times at once, so repeated reads do not increase alpha: the probability that it
ever misses the true difference is at most alpha. The bound is the Gaussian mixture of Robbins (1970) for the mean of
losses, as a two-sample asymptotic sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", Annals of Statistics 52 (2024), equation 10; the same boundary as the
mixture SPRT of Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 70 (2022).
It is asymptotic, so it decides nothing before each arm has ``MIN_UNITS`` units. A unit is an entity, or a row that was
assigned to an arm: labels of one entity are correlated, so 100 labels of one entity are weaker evidence than labels of
100 entities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from skewless.validation.evaluation.interval import Units, unit_sums

Winner = Literal["champion", "challenger"]
Floats = NDArray[np.float64]
MIN_UNITS = 100
_TUNED_FOR = 2_000  # number of units at which the sequence is narrowest


@dataclass(frozen=True, kw_only=True)
class LossSummary:
    """The number of units, mean and sum of squared deviations of some losses.

    A deviation is the contribution of a unit's losses to the mean, so the variance is that of a mean of units.

    >>> LossSummary.of(np.array([1.0, 3.0]), np.array([7, 8], dtype=np.uint64)).variance
    2.0
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, losses: Floats, units: Units) -> Self:
        """Return the summary of losses, shape ``(n,)``, and the unit of each loss."""
        if not losses.size:
            return cls()
        mean = float(losses.mean())
        sums = unit_sums(losses - mean, units)
        share = sums * (sums.size / losses.size)
        return cls(n=int(sums.size), mean=mean, squares=float((share**2).sum()))

    @property
    def variance(self) -> float:
        """Return the sample variance, 0 for fewer than two losses."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The summaries of labelled predictions' losses, by arm."""

    champion: LossSummary
    challenger: LossSummary


@dataclass(frozen=True, kw_only=True)
class InterimAnalysis:
    """The state of the test after some labels.

    Args:
        difference: mean loss of the challenger minus the champion's; below zero: the challenger is better.
        low: lower end of the confidence sequence.
        high: upper end.
        winner: the better arm; None: undecided.
    """

    difference: float
    low: float
    high: float
    winner: Winner | None

    def as_dict(self) -> dict[str, float | str | None]:
        """Return plain values; infinite values are None."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"difference": self.difference, "low": low, "high": high, "winner": self.winner}


def analyse(losses: Losses, alpha: float) -> InterimAnalysis:
    """Return the state of the test; the probability of ever declaring a false winner is at most ``alpha``.

    >>> better, worse = LossSummary(n=900, mean=0.3, squares=90.0), LossSummary(n=900, mean=0.5, squares=90.0)
    >>> analyse(Losses(champion=worse, challenger=better), 0.05).winner
    'challenger'
    """
    difference = losses.challenger.mean - losses.champion.mean
    radius = _radius(losses, alpha)
    low, high = difference - radius, difference + radius
    winner: Winner | None = "challenger" if high < 0 else "champion" if low > 0 else None
    return InterimAnalysis(difference=difference, low=low, high=high, winner=winner)


def _radius(losses: Losses, alpha: float) -> float:
    """Return half the width of the sequence: infinite while an arm has too few units."""
    arms = (losses.champion, losses.challenger)
    n = sum(arm.n for arm in arms)
    if min(arm.n for arm in arms) < MIN_UNITS:
        return math.inf
    # The difference of means has the variance of a mean of n terms with this variance.
    variance = n * sum(arm.variance / arm.n for arm in arms)
    # The mixture's variance for which the sequence is narrowest at `_TUNED_FOR` units (appendix B.2).
    log_term = -2 * math.log(alpha)
    rho2 = (log_term + math.log(log_term) + 1) / _TUNED_FOR
    grown = n * rho2 + 1
    return math.sqrt(variance) * math.sqrt(2 * grown / (n * n * rho2) * math.log(math.sqrt(grown) / alpha))
