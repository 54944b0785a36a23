"""Guardrails: compare the challenger with the champion over the same time, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from skewless.contract.lifecycle import Guardrails
from skewless.contract.status import Int64Array
from skewless.infra.models.rollout.counts import Histogram, RolloutCounts
from skewless.training.rollout.evidence import Evidence, MeanComparison
from skewless.validation.drift.histograms import psi

# Guardrails are judged every few seconds: in thousands of judgements, chance alone must not breach one.
_CHANCE = 1e-4
_P99 = 0.99
_MEDIAN = 0.5
_SCORE_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict of one guardrail.

    Args:
        guardrail: its name in ``Guardrails``, or ``latency_median``.
        champion: the champion's number; None without counts.
        challenger: the challenger's number.
        worse: how much worse the challenger is, in the unit of the limit.
        least: lower confidence bound of ``worse``; None: not judged yet.
        limit: the largest allowed ``least``.
    """

    guardrail: str
    champion: float | None
    challenger: float | None
    worse: float | None
    least: float | None
    limit: float

    @property
    def breached(self) -> bool:
        """Return whether traffic must go back to the champion."""
        return self.least is not None and self.least > self.limit

    def sentence(self) -> str:
        """Return the verdict for people."""
        if self.least is None:
            return f"{self.guardrail}: not judged yet, has too little data"
        state = "breached" if self.breached else "held"
        numbers = f"challenger {self.challenger:.4g}, champion {self.champion:.4g}"
        return f"{self.guardrail} {state}: {numbers}, at least {self.least:.4g} worse, limit {self.limit:.4g}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; infinite values are None."""
        values = asdict(self) | {"breached": self.breached}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


def judge(limits: Guardrails, evidence: Evidence) -> list[Verdict]:
    """Return a verdict for each active guardrail.

    Errors are judged from the first request, everything else after both arms have ``least_requests``. A guardrail is
    judged on all counts of the policy; a breach in the recent counts replaces that verdict.
    """
    recent = _judge_all(limits, evidence.recent) if evidence.recent else []
    breached = {verdict.guardrail: verdict for verdict in recent if verdict.breached}
    return [breached.get(verdict.guardrail, verdict) for verdict in _judge_all(limits, evidence)]


def _judge_all(limits: Guardrails, evidence: Evidence) -> list[Verdict]:
    arms, enough = (evidence.champion, evidence.challenger), evidence.requests >= limits.least_requests
    judges: Sequence[tuple[float | None, Callable[[float], Verdict]]] = (
        (limits.errors, partial(_judge_errors, *arms)),
        (limits.latency, partial(_judge_latency, *arms, name="latency", at=_P99, enough=enough)),
        (limits.latency, partial(_judge_latency, *arms, name="latency_median", at=_MEDIAN, enough=enough)),
        (limits.score_shift, partial(_judge_scores, *arms, enough=enough)),
        (limits.missing, partial(_judge_missing, *arms, enough=enough)),
        (limits.quality, partial(_judge_comparison, "quality", evidence.quality)),
        (limits.business, partial(_judge_comparison, "business", evidence.business)),
    )
    return [judge_one(limit) for limit, judge_one in judges if limit is not None]


def _judge_errors(champion: RolloutCounts, challenger: RolloutCounts, limit: float) -> Verdict:
    counts = (challenger.failed, challenger.requests, champion.failed, champion.requests)
    # Not after `least_requests`: a version that fails every request must not get so many. The interval of a few
    # requests is wide enough to hold chance off.
    return _judge_shares("errors", limit, *counts, judged=challenger.requests > 0)


def _judge_missing(champion: RolloutCounts, challenger: RolloutCounts, limit: float, *, enough: bool) -> Verdict:
    # The values of a row are missing together, so the sample size is the number of rows, not of values.
    counts = (
        _share(challenger.missing, challenger.values) * challenger.rows,
        challenger.rows,
        _share(champion.missing, champion.values) * champion.rows,
        champion.rows,
    )
    return _judge_shares("missing", limit, *counts, judged=enough)


def _judge_latency(
    champion: RolloutCounts, challenger: RolloutCounts, limit: float, *, name: str, at: float, enough: bool
) -> Verdict:
    """Judge whether significantly more of the challenger's requests are slower than the champion's quantile allows.

    The median is judged in addition to p99: a slow challenger delays the champion's requests in the same process, and
    raises their p99 with its own, but hardly their median.
    """
    latency = challenger.latency
    quantiles = (arm.quantile(at) for arm in (latency, champion.latency))
    slow, expected = (None if math.isnan(value) else value for value in quantiles)
    ratio = least = None
    if enough and slow and expected and math.isfinite(expected):
        ratio = slow / expected
        # The values that are certainly above: those in buckets that begin at or above the limit.
        above = sum(latency.counts[int(np.searchsorted(latency.edges, limit * expected)) + 1 :])
        slow_share = _interval(above, latency.n)[0]
        # If chance explains the slow requests, the verdict is within the limit.
        least = ratio if slow_share > 1 - at else min(ratio, limit)
    return Verdict(guardrail=name, champion=expected, challenger=slow, worse=ratio, least=least, limit=limit)


def _judge_scores(champion: RolloutCounts, challenger: RolloutCounts, limit: float, *, enough: bool) -> Verdict:
    """Judge the population stability index beyond that of two samples of one population."""
    means = [_mean(arm.scores) for arm in (champion, challenger)]
    index = least = None
    if enough and all(arm.scores.n for arm in (champion, challenger)):
        expected, actual = _rebin(champion.scores, challenger.scores)
        index = float(psi(expected[None], actual[None])[0])
        from scipy.special import chdtri  # noqa: PLC0415 - scipy is not needed to show a rollout

        # The PSI of two samples of one population is chi-squared, scaled: see ``validation/drift/histograms.py``.
        scale = 1 / champion.scores.n + 1 / challenger.scores.n
        least = max(0.0, index - scale * float(chdtri(max(1, expected.size - 1), _CHANCE)))
    return Verdict(
        guardrail="score_shift", champion=means[0], challenger=means[1], worse=index, least=least, limit=limit
    )


def _rebin(champion: Histogram, challenger: Histogram) -> tuple[Int64Array, Int64Array]:
    """Return the counts of both in at most ten bins with equal numbers of the champion's values."""
    expected, actual = np.array(champion.counts), np.array(challenger.counts)
    cumulative = np.cumsum(expected) - expected
    # Sparse buckets would inflate the index, so neighbours are merged to equal numbers of the champion's values.
    bins = (cumulative * _SCORE_BINS) // max(1, int(expected.sum()))
    _, first = np.unique(bins, return_index=True)
    return np.add.reduceat(expected, first), np.add.reduceat(actual, first)


def _judge_comparison(name: str, comparison: MeanComparison | None, limit: float) -> Verdict:
    if comparison is None:
        return Verdict(guardrail=name, champion=None, challenger=None, worse=None, least=None, limit=limit)
    return Verdict(
        guardrail=name,
        champion=comparison.champion,
        challenger=comparison.challenger,
        worse=(comparison.low + comparison.high) / 2,
        least=comparison.low,
        limit=limit,
    )


def _judge_shares(name: str, limit: float, k: float, n: int, base_k: float, base_n: int, *, judged: bool) -> Verdict:
    """Compare two shares by combining their exact intervals (Newcombe, 1998, method 10)."""
    champion, challenger = _share(base_k, base_n), _share(k, n)
    worse = least = None
    if judged:
        worse = challenger - champion
        lowest, highest = _interval(k, n)[0], _interval(base_k, base_n)[1]
        least = worse - math.hypot(challenger - lowest, highest - champion)
    return Verdict(guardrail=name, champion=champion, challenger=challenger, worse=worse, least=least, limit=limit)


def _interval(k: float, n: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share; 0 to 1 without counts."""
    # Quantiles of the beta distribution; scipy.stats has the same, and takes far longer to import.
    from scipy.special import betaincinv  # noqa: PLC0415 - scipy is not needed to show a rollout

    low = float(betaincinv(k, n - k + 1, _CHANCE / 2)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - _CHANCE / 2)) if k < n else 1.0
    return low, high


def _share(k: float, n: int) -> float:
    return k / n if n else 0.0


def _mean(histogram: Histogram) -> float | None:
    """Return the approximate mean: each value counts as the upper edge of its bucket."""
    if not histogram.n:
        return None
    edges = np.array([*histogram.edges, histogram.edges[-1]])
    return float((edges * np.array(histogram.counts)).sum() / histogram.n)
