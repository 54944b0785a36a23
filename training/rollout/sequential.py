"""A test that may be looked at after every label: which of two versions has the lower mean loss.

A confidence sequence holds at all times at once, so looking again and again spends no alpha: the chance that it ever
misses the true difference is at most alpha. The bound is the Gaussian mixture of Robbins (1970) for the mean of losses,
as a two-sample asymptotic sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences", Annals of Statistics 52 (2024), equation 10; the same boundary as the
mixture SPRT of Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 70 (2022).
It is asymptotic: nothing is said before each arm has ``LEAST`` units. A unit is what was drawn to an arm: labels of one
entity vary together, so an entity with a hundred labels is no hundred witnesses.
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
LEAST = 100
_BEST_AT = 2_000  # units at which the sequence is as narrow as it can be made


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Number of units, mean and sum of squared deviations of some losses.

    With units, a deviation is what all losses of one add to the mean, as its variance is then that of a mean of units.

    >>> Moments.of(np.array([1.0, 3.0])).variance
    2.0
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, losses: Floats, units: Units | None = None) -> Self:
        """Return the moments of losses, shape ``(n,)``.

        Args:
            units: ``(n,)``, which were drawn to their arm together; None: each by itself.
        """
        if not losses.size:
            return cls()
        mean = float(losses.mean())
        if units is not None:
            sums = unit_sums(losses - mean, units)
            share = sums * (sums.size / losses.size)
            return cls(n=int(sums.size), mean=mean, squares=float((share**2).sum()))
        return cls(n=int(losses.size), mean=mean, squares=float(((losses - mean) ** 2).sum()))

    @property
    def variance(self) -> float:
        """Return the sample variance, 0 of fewer than two losses."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of labelled predictions, by arm."""

    champion: Moments
    challenger: Moments


@dataclass(frozen=True, kw_only=True)
class InterimAnalysis:
    """One look at the test.

    Args:
        difference: mean loss of the challenger less that of the champion; below zero: the challenger is better.
        low: lower end of the confidence sequence.
        high: upper end.
        winner: None: not decided.
    """

    difference: float
    low: float
    high: float
    winner: Winner | None

    def as_dict(self) -> dict[str, float | str | None]:
        """Return plain values; what is infinite is None."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"difference": self.difference, "low": low, "high": high, "winner": self.winner}


def look(losses: Losses, alpha: float) -> InterimAnalysis:
    """Return what the test says now; chance of a false winner at any look ever: at most ``alpha``.

    >>> better, worse = Moments(n=900, mean=0.3, squares=90.0), Moments(n=900, mean=0.5, squares=90.0)
    >>> look(Losses(champion=worse, challenger=better), 0.05).winner
    'challenger'
    """
    difference = losses.challenger.mean - losses.champion.mean
    radius = _radius(losses, alpha)
    low, high = difference - radius, difference + radius
    winner: Winner | None = "challenger" if high < 0 else "champion" if low > 0 else None
    return InterimAnalysis(difference=difference, low=low, high=high, winner=winner)


def _radius(losses: Losses, alpha: float) -> float:
    """Return half the width of the sequence: infinite while an arm has too few labels."""
    arms = (losses.champion, losses.challenger)
    n = sum(arm.n for arm in arms)
    if min(arm.n for arm in arms) < LEAST:
        return math.inf
    # The difference of means behaves as a mean of n terms of this variance.
    variance = n * sum(arm.variance / arm.n for arm in arms)
    rho2 = _rho2(alpha)
    grown = n * rho2 + 1
    return math.sqrt(variance) * math.sqrt(2 * grown / (n * n * rho2) * math.log(math.sqrt(grown) / alpha))


def _rho2(alpha: float) -> float:
    """Return the mixture's variance that makes the sequence narrowest at ``_BEST_AT`` labels (there, appendix B.2)."""
    spent = -2 * math.log(alpha)
    return (spent + math.log(spent) + 1) / _BEST_AT
