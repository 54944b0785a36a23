"""How far two histograms of a column are apart; all functions take ``(n_columns, n_bins)`` counts, row by row."""

from __future__ import annotations

import numpy as np

from skewless.contract.status import Int64Array
from skewless.validation.drift.histograms import Floats

Counts = Int64Array | Floats
_HALF = 0.5  # Jeffreys' prior: no bin is empty, and what it adds vanishes with the rows


def psi(before: Counts, now: Counts) -> Floats:
    """Return the population stability index: ``sum((q - p) * ln(q / p))``, 0 or more.

    Bins that are empty on both sides do not count; half a row is added to each other bin, on both sides.

    >>> psi(np.array([[50, 50]]), np.array([[500, 500]])).tolist()
    [0.0]
    """
    used = before + now > 0
    p, q = (_shares(np.where(used, counts + _HALF, 0.0)) for counts in (before, now))
    ratio = np.divide(q, p, out=np.ones_like(p), where=p > 0)
    return np.asarray(((q - p) * np.log(ratio)).sum(axis=1))


def js(before: Counts, now: Counts) -> Floats:
    """Return the Jensen-Shannon distance, base 2: 0 where equal, 1 where nothing is shared.

    >>> js(np.array([[9, 0]]), np.array([[0, 9]])).tolist()
    [1.0]
    """
    p, q = _shares(before), _shares(now)
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / 2
    return np.sqrt(np.clip(divergence, 0.0, 1.0))


def ks(before: Counts, now: Counts) -> Floats:
    """Return the Kolmogorov-Smirnov distance of ordered bins: the largest difference of the cumulative shares.

    >>> ks(np.array([[5, 5, 0]]), np.array([[0, 5, 5]])).tolist()
    [0.5]
    """
    apart = np.cumsum(_shares(before), axis=1) - np.cumsum(_shares(now), axis=1)
    return np.asarray(np.abs(apart).max(axis=1, initial=0.0))


def _shares(counts: Counts) -> Floats:
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _relative(p: Floats, middle: Floats) -> Floats:
    ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=1))
