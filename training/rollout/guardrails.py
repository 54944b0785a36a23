"""Guardrails: what of an arm may not be worse than the champion over the same time, judged with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skewless.contract.lifecycle import Guardrails
from skewless.contract.status import Int64Array
from skewless.infra.rollout.counts import Histogram, RolloutCounts
from skewless.training.rollout.evidence import Evidence, MeanComparison
from skewless.validation.drift.measures import psi

# Verdicts are asked for every few seconds: chance alone must not break one in thousands of looks.
_CHANCE = 1e-4
_P99 = 0.99
_MEDIAN = 0.5
_SCORE_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one guardrail says.

    Args:
        guardrail: its name in ``Guardrails``, or ``latency_median``.
        champion: the champion's number; None where nothing was counted.
        challenger: the challenger's.
        worse: how much worse the challenger is, in the terms of the limit.
        least: how much worse it is at least, once chance is allowed for; None: not judged yet.
        limit: what ``least`` may be.
    """

    guardrail: str
    champion: float | None
    challenger: float | None
    worse: float | None
    least: float | None
    limit: float

    @property
    def breached(self) -> bool:
        """Say whether traffic goes back to the champion."""
        return self.least is not None and self.least > self.limit

    def sentence(self) -> str:
        """Return the verdict for people."""
        if self.least is None:
            return f"{self.guardrail}: not judged yet, too little to compare"
        state = "breached" if self.breached else "held"
        numbers = f"challenger {self.challenger:.4g}, champion {self.champion:.4g}"
        return f"{self.guardrail} {state}: {numbers}, at least {self.least:.4g} worse, limit {self.limit:.4g}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; what is infinite is None."""
        values = {name: _finite(value) for name, value in asdict(self).items()}
        return values | {"breached": self.breached}


def judge(limits: Guardrails, evidence: Evidence) -> list[Verdict]:
    """Return a verdict per guardrail that is on.

    Errors are judged from the first request, everything else once both arms have ``least_requests``: since the policy
    began, and lately, where that is breached.
    """
    found = [
        *_counted(limits, evidence),
        _compared("quality", limits.quality, evidence.quality),
        _compared("business", limits.business, evidence.business),
    ]
    lately = _counted(limits, evidence.recent) if evidence.recent else []
    broken = {verdict.guardrail: verdict for verdict in lately if verdict is not None and verdict.breached}
    return [broken.get(verdict.guardrail, verdict) for verdict in found if verdict is not None]


def _counted(limits: Guardrails, evidence: Evidence) -> list[Verdict | None]:
    """Return what servers' counts say."""
    champion, challenger = evidence.champion, evidence.challenger
    enough = evidence.requests >= limits.least_requests
    return [
        _errors(limits.errors, champion, challenger),
        _latency("latency", _P99, limits.latency, evidence, enough=enough),
        _latency("latency_median", _MEDIAN, limits.latency, evidence, enough=enough),
        _score_shift(limits.score_shift, champion, challenger, enough=enough),
        _missing(limits.missing, champion, challenger, enough=enough),
    ]


def _errors(limit: float | None, champion: RolloutCounts, challenger: RolloutCounts) -> Verdict | None:
    if limit is None:
        return None
    counts = (challenger.failed, challenger.requests, champion.failed, champion.requests)
    return _shares("errors", limit, *counts, judged=challenger.requests > 0)


def _missing(
    limit: float | None, champion: RolloutCounts, challenger: RolloutCounts, *, enough: bool
) -> Verdict | None:
    if limit is None:
        return None
    # The values of a row go missing together: a row counts once.
    counts = (
        _share(challenger.missing, challenger.values) * challenger.rows,
        challenger.rows,
        _share(champion.missing, champion.values) * champion.rows,
        champion.rows,
    )
    return _shares("missing", limit, *counts, judged=enough)


def _latency(name: str, at: float, limit: float | None, evidence: Evidence, *, enough: bool) -> Verdict | None:
    """Judge whether certainly more of the challenger's requests are slower than a quantile of the champion's allows.

    The median is judged beside p99: a slow challenger holds up the champion's requests in the same process, and with
    them their p99, but hardly their median.
    """
    if limit is None:
        return None
    latency = evidence.challenger.latency
    slow, usual = (_number(arm.quantile(at)) for arm in (latency, evidence.champion.latency))
    ratio = least = None
    if enough and slow and usual and math.isfinite(usual):
        ratio = slow / usual
        late = _interval(_above(latency, limit * usual), latency.n)[0]
        # Where chance explains the slow ones, the ratio is within what is allowed.
        least = ratio if late > 1 - at else min(ratio, limit)
    return Verdict(guardrail=name, champion=usual, challenger=slow, worse=ratio, least=least, limit=limit)


def _score_shift(
    limit: float | None, champion: RolloutCounts, challenger: RolloutCounts, *, enough: bool
) -> Verdict | None:
    """Judge the population stability index beyond what two samples of one population show."""
    if limit is None:
        return None
    means = [_mean(arm.scores) for arm in (champion, challenger)]
    shift = least = None
    if enough and all(arm.scores.n for arm in (champion, challenger)):
        expected, found = _rebinned(champion.scores, challenger.scores)
        shift = float(psi(expected[None], found[None])[0])
        from scipy.special import chdtri  # noqa: PLC0415 - a look at a rollout does without

        # The PSI of two samples of one population is chi-squared, scaled: see ``validation/drift/measures.py``.
        scale = 1 / champion.scores.n + 1 / challenger.scores.n
        least = max(0.0, shift - scale * float(chdtri(max(1, expected.size - 1), _CHANCE)))
    return Verdict(
        guardrail="score_shift", champion=means[0], challenger=means[1], worse=shift, least=least, limit=limit
    )


def _rebinned(champion: Histogram, challenger: Histogram) -> tuple[Int64Array, Int64Array]:
    """Return the counts of both in at most ten bins with equally many of the champion's values."""
    expected, found = np.array(champion.counts), np.array(challenger.counts)
    before = np.cumsum(expected) - expected
    bins = (before * _SCORE_BINS) // max(1, int(expected.sum()))
    _, first = np.unique(bins, return_index=True)
    return np.add.reduceat(expected, first), np.add.reduceat(found, first)


def _compared(name: str, limit: float | None, found: MeanComparison | None) -> Verdict | None:
    if limit is None:
        return None
    if found is None:
        return Verdict(guardrail=name, champion=None, challenger=None, worse=None, least=None, limit=limit)
    return Verdict(
        guardrail=name,
        champion=found.champion,
        challenger=found.challenger,
        worse=(found.low + found.high) / 2,
        least=found.low,
        limit=limit,
    )


def _shares(name: str, limit: float, k: float, n: int, base_k: float, base_n: int, *, judged: bool) -> Verdict:
    """Compare two shares: exact intervals of each, put together (Newcombe, 1998, method 10)."""
    champion, challenger = _share(base_k, base_n), _share(k, n)
    worse = least = None
    if judged:
        worse = challenger - champion
        lowest, highest = _interval(k, n)[0], _interval(base_k, base_n)[1]
        least = worse - math.hypot(challenger - lowest, highest - champion)
    return Verdict(guardrail=name, champion=champion, challenger=challenger, worse=worse, least=least, limit=limit)


def _interval(k: float, n: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share; everything, where nothing was counted."""
    from scipy.stats import beta  # noqa: PLC0415 - likewise

    low = float(beta.ppf(_CHANCE / 2, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - _CHANCE / 2, k + 1, n - k)) if k < n else 1.0
    return low, high


def _share(k: float, n: int) -> float:
    return k / n if n else 0.0


def _above(histogram: Histogram, value: float) -> int:
    """Return how many values are certainly above one: those in buckets that begin at it or later."""
    return sum(histogram.counts[int(np.searchsorted(histogram.edges, value)) + 1 :])


def _mean(histogram: Histogram) -> float | None:
    """Return about the mean: a value counts as the upper end of its bucket."""
    if not histogram.n:
        return None
    places = np.array([*histogram.edges, histogram.edges[-1]])
    return float((places * np.array(histogram.counts)).sum() / histogram.n)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
