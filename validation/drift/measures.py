"""Distances between two histograms of a column, and their distribution by chance alone.

All functions take ``(n_columns, n_bins)`` counts and work row by row.
"""

from __future__ import annotations

import numpy as np

from skewless.contract.status import Int64Array
from skewless.validation.drift.histograms import Floats

Counts = Int64Array | Floats
_HALF = 0.5  # Jeffreys' prior: no bin is empty, and its effect vanishes with many rows
_KS_MEAN = float(np.sqrt(np.pi / 2) * np.log(2))  # mean of Kolmogorov's distribution


def psi(trained: Counts, live: Counts) -> Floats:
    """Return the population stability index: ``sum((q - p) * ln(q / p))``, 0 or more.

    Bins that are empty on both sides are ignored; half a row is added to each other bin, on both sides.

    >>> psi(np.array([[50, 50]]), np.array([[500, 500]])).tolist()
    [0.0]
    """
    used = trained + live > 0
    p, q = (_shares(np.where(used, counts + _HALF, 0.0)) for counts in (trained, live))
    ratio = np.divide(q, p, out=np.ones_like(p), where=p > 0)
    return np.asarray(((q - p) * np.log(ratio)).sum(axis=1))


def jensen_shannon(trained: Counts, live: Counts) -> Floats:
    """Return the Jensen-Shannon distance, base 2: 0 if equal, 1 if disjoint.

    >>> jensen_shannon(np.array([[9, 0]]), np.array([[0, 9]])).tolist()
    [1.0]
    """
    p, q = _shares(trained), _shares(live)
    mean = (p + q) / 2
    divergence = (_relative(p, mean) + _relative(q, mean)) / 2
    # Rounding may leave slightly less than 0, whose root is NaN.
    return np.sqrt(np.clip(divergence, 0.0, 1.0))


def kolmogorov_smirnov(trained: Counts, live: Counts) -> Floats:
    """Return the Kolmogorov-Smirnov distance of ordered bins: the largest difference of the cumulative shares.

    >>> kolmogorov_smirnov(np.array([[5, 5, 0]]), np.array([[0, 5, 5]])).tolist()
    [0.5]
    """
    difference = np.cumsum(_shares(trained), axis=1) - np.cumsum(_shares(live), axis=1)
    return np.asarray(np.abs(difference).max(axis=1, initial=0.0))


def homogeneity(trained: Counts, live: Counts) -> Floats:
    """Return p-values of the hypothesis "both have one distribution", shape ``(n_columns,)``; 1 if a side has no rows.

    They apply to PSI and Jensen-Shannon: without drift and with many rows, both are multiples of one chi-squared
    variable (see ``expected_psi``). The larger p-value of Pearson's statistic and the likelihood ratio counts. With few
    rows per bin, each alone can be too small, but in simulations down to 50 rows and 0.01 expected rows per bin their
    maximum never was (``tests/unit/validation/drift``).
    """
    from scipy import special  # noqa: PLC0415 - scipy is not needed to show a rollout

    freedom = np.maximum(_count_used_bins(trained, live) - 1, 1)
    pearson, likelihood = (special.chdtrc(freedom, value) for value in _statistics(trained, live))
    has_rows = (trained.sum(axis=1) > 0) & (live.sum(axis=1) > 0)
    return np.where(has_rows, np.maximum(pearson, likelihood), 1.0)


def smirnov(trained: Counts, live: Counts) -> Floats:
    """Return p-values of the Kolmogorov-Smirnov distance, shape ``(n_columns,)``; conservative for bins.

    Uses the limiting distribution, corrected for few rows (Stephens, Journal of the Royal Statistical Society B 32,
    1970).
    """
    from scipy import special  # noqa: PLC0415 - scipy is not needed to show a rollout

    root = 1 / np.sqrt(_inverse_sizes(trained, live))
    corrected = root + np.where(root > 0, 0.12 + 0.11 / np.maximum(root, 1.0), 0.0)
    return np.asarray(special.kolmogorov(corrected * kolmogorov_smirnov(trained, live)))


def holm(p: Floats) -> Floats:
    """Return p-values adjusted for multiple tests, any shape (Holm, 1979).

    The probability that any test without an effect falls below ``alpha`` is at most ``alpha``, for any dependence
    between the tests.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    flat = p.ravel()
    order = np.argsort(flat, kind="stable")
    # The running maximum: a larger p-value must not have a smaller adjusted one.
    adjusted = np.maximum.accumulate(flat[order] * (flat.size - np.arange(flat.size)))
    result = np.empty_like(flat)
    result[order] = np.minimum(adjusted, 1.0)
    return result.reshape(p.shape)


def expected_psi(trained: Counts, live: Counts) -> Floats:
    """Return the mean of PSI without drift: ``(bins - 1) * (1 / n + 1 / m)``, shape ``(n_columns,)``.

    Yurdakul, Naranjo: Statistical properties of the population stability index, Journal of Risk Model Validation 14,
    2020.
    """
    return np.asarray((_count_used_bins(trained, live) - 1) * _inverse_sizes(trained, live))


def expected_js(trained: Counts, live: Counts) -> Floats:
    """Return the mean of the squared Jensen-Shannon distance without drift; an eighth of PSI's, in bits."""
    return np.asarray(expected_psi(trained, live) / (8 * np.log(2)))


def expected_ks(trained: Counts, live: Counts) -> Floats:
    """Return the mean of the Kolmogorov-Smirnov distance without drift; an upper bound for bins."""
    return np.asarray(_KS_MEAN * np.sqrt(_inverse_sizes(trained, live)))


def _count_used_bins(trained: Counts, live: Counts) -> Int64Array:
    """Return the number of bins of each column that are not empty on both sides."""
    return np.asarray((trained + live > 0).sum(axis=1))


def _inverse_sizes(trained: Counts, live: Counts) -> Floats:
    """Return ``1 / n + 1 / m`` of each column; infinite if a side has no rows."""
    with np.errstate(divide="ignore"):
        return np.asarray(1 / trained.sum(axis=1) + 1 / live.sum(axis=1))


def _statistics(trained: Counts, live: Counts) -> tuple[Floats, Floats]:
    """Return Pearson's chi-squared and the likelihood ratio of the two rows of counts of each column."""
    pearson = likelihood = np.zeros(len(trained))
    both = trained + live
    total = np.maximum(both.sum(axis=1, keepdims=True), 1)
    for counts in (trained, live):
        expected = both / total * counts.sum(axis=1, keepdims=True)
        ratio = np.divide(counts, expected, out=np.ones_like(expected), where=expected > 0)
        logs = np.log(ratio, out=np.zeros_like(ratio), where=ratio > 0)
        pearson = pearson + ((ratio - 1) ** 2 * expected).sum(axis=1)
        likelihood = likelihood + 2 * (counts * logs).sum(axis=1)
    # The ratio is 0 or more; rounding of equal histograms may leave a little less.
    return pearson, np.maximum(likelihood, 0.0)


def _shares(counts: Counts) -> Floats:
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _relative(p: Floats, middle: Floats) -> Floats:
    ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=1))
