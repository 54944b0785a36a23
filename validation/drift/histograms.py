"""Histograms of several columns over the bins of a training profile, and distances between two of them.

Functions of distances take ``(n_columns, n_bins)`` counts and work row by row; others return their distribution by
chance alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array

Floats = npt.NDArray[np.float64]
_NULLS, _BELOW = 0, 1
Counts = Int64Array | Floats
_HALF = 0.5  # Jeffreys' prior: no bin is empty, and its effect vanishes with many rows
_KS_MEAN = float(np.sqrt(np.pi / 2) * np.log(2))  # mean of Kolmogorov's distribution


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The bins of several columns.

    The bins of a column with edges ``e`` are: nulls (NaN), values below the training range, the ranges
    ``e[i] <= value < e[i + 1]``, and values above the training range. ``e[0]`` is the smallest training value, the last
    edge is just above the largest. Infinities count in the outermost training bins.

    Args:
        names: names of the columns.
        edges: edges of each column, increasing; empty if training had no finite value.
    """

    names: tuple[str, ...]
    edges: tuple[Floats, ...]

    @property
    def width(self) -> int:
        """Return the largest number of bins of a column; other columns are padded with empty bins."""
        return max((edges.size for edges in self.edges), default=0) + 2

    @classmethod
    def of_profile(cls, features: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the bins of profiled columns (``skewless.training.curves``), by name."""
        return cls(names=tuple(features), edges=tuple(_edges(feature) for feature in features.values()))

    def find_bins(self, column: int, values: Floats) -> Int64Array:
        """Return the bin of each value, shape ``(n,)``."""
        edges = self.edges[column]
        if not edges.size:
            # Training had no finite value, so each live value is outside of its range.
            return np.where(np.isnan(values), _NULLS, _BELOW)
        bins = np.searchsorted(edges, values, side="right").astype(np.int64) + 1
        bins[np.isnan(values)] = _NULLS
        # Infinities were in the outer training bins, so they do not count as outside of the training range.
        if np.isinf(values).any():
            bins[np.isposinf(values)] = edges.size
            bins[np.isneginf(values)] = _BELOW + 1
        return bins


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """The number of values per bin of each column.

    Args:
        bins: the bins.
        counts: shape ``(n_columns, bins.width)``.
    """

    bins: Bins
    counts: Int64Array

    @classmethod
    def empty(cls, bins: Bins) -> Self:
        """Return empty histograms."""
        return cls(bins=bins, counts=np.zeros((len(bins.names), bins.width), dtype=np.int64))

    @classmethod
    def of_profile(cls, bins: Bins, features: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the training histograms of a profile, over its bins."""
        counts = np.zeros((len(bins.names), bins.width), dtype=np.int64)
        for row, (feature, edges) in enumerate(zip(features.values(), bins.edges, strict=True)):
            counts[row, _NULLS] = feature["nulls"]
            # A column without edges has one bin in the profile; it is the bin in which `find_bins` counts its values.
            first = _BELOW + 1 if edges.size else _BELOW
            counts[row, first : first + len(feature["counts"])] = feature["counts"]
        return cls(bins=bins, counts=counts)

    @property
    def rows(self) -> Int64Array:
        """Return the number of values of each column, nulls included, shape ``(n_columns,)``."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def null_share(self) -> Floats:
        """Return the share of nulls of each column, NaN without rows."""
        return _share(self.counts[:, _NULLS], self.rows)

    @property
    def new_share(self) -> Floats:
        """Return the share of values outside of the training range, NaN without rows."""
        above = np.array([edges.size + 1 for edges in self.bins.edges], dtype=np.int64)
        columns = np.arange(len(above))
        outside = self.counts[:, _BELOW] + np.where(above > _BELOW, self.counts[columns, above], 0)
        return _share(outside, self.rows)

    def add_rows(self, columns: Mapping[str, Floats]) -> Self:
        """Return the histograms with the values of further rows added.

        Args:
            columns: values by column, each of shape ``(n,)``; columns without bins are skipped, some may be missing.
        """
        counts = self.counts.copy()
        for row, name in enumerate(self.bins.names):
            if name in columns:
                counts[row] += np.bincount(self.bins.find_bins(row, columns[name]), minlength=self.bins.width)
        return type(self)(bins=self.bins, counts=counts)

    def add(self, other: Self) -> Self:
        """Return the sum of two histograms over the same bins."""
        return type(self)(bins=self.bins, counts=self.counts + other.counts)


def _edges(feature: Mapping[str, Any]) -> Floats:
    if feature["min"] is None:
        return np.empty(0, dtype=np.float64)
    # The largest value belongs to the last training bin, so the bin above begins with the next float.
    inner, beyond = feature["edges"], np.nextafter(feature["max"], np.inf)
    return np.array([feature["min"], *inner, beyond], dtype=np.float64)


def _share(part: Int64Array, total: Int64Array) -> Floats:
    return np.asarray(np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0))


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
