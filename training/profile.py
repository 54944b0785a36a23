"""Profiles the training data per feature, as a baseline for live values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skewless.infra.runtimes.port import Matrix, Vector

_BINS = 20


def profile_features(matrix: Matrix, names: Sequence[str]) -> dict[str, Any]:
    """Return a histogram and summary per feature, as plain JSON values.

    A feature has ``edges`` (at most 19, increasing) and one more ``counts``: bin ``i`` contains the values with
    ``edges[i - 1] <= value < edges[i]``; the outer bins are open and include infinities. Edges are values of the data:
    quantiles, or all values if there are at most 20. ``nulls`` counts NaN; ``min``, ``max`` and ``mean`` are of finite
    values, None without any.

    Args:
        matrix: ``(n, n_features)`` float64.
        names: names of the columns, in order.

    >>> profile_features(np.array([[1.0], [2.0], [np.nan]]), ["x"])["features"]["x"]["counts"]
    [1, 1]
    """
    return {
        "rows": int(matrix.shape[0]),
        "features": {name: column_profile(matrix[:, index]) for index, name in enumerate(names)},
    }


def bin_edges(values: Vector, bins: int = _BINS) -> Vector:
    """Return the inner edges, at most ``bins - 1``, increasing; none for fewer than two distinct values."""
    finite = values[np.isfinite(values)]
    # -0.0 + 0.0 is 0.0: otherwise the first zero of the data would decide the sign of the edge.
    distinct: Vector = np.unique(finite) + 0.0
    if distinct.size <= bins:
        inner: Vector = distinct[1:]
        return inner
    cuts = np.quantile(finite, np.arange(1, bins) / bins, method="higher") + 0.0
    unique = np.unique(cuts)
    # An edge at the smallest value would leave the first bin without any value.
    above: Vector = unique[unique > distinct[0]]
    return above


def bin_counts(values: Vector, edges: Vector) -> list[int]:
    """Return the number of values in each of the ``len(edges) + 1`` bins; NaN is in none.

    >>> bin_counts(np.array([-1.0, 0.0, 0.5, np.nan, np.inf]), np.array([0.0, 1.0]))
    [1, 2, 1]
    """
    present = values[~np.isnan(values)]
    places = np.searchsorted(edges, present, side="right")
    counts: list[int] = np.bincount(places, minlength=edges.size + 1).tolist()
    return counts


def column_profile(values: Vector) -> dict[str, Any]:
    """Return histogram and summary of one column, shape ``(n,)``; see ``profile``."""
    edges = bin_edges(values)
    finite = values[np.isfinite(values)]
    nulls = int(np.isnan(values).sum())
    return {
        "edges": edges.tolist(),
        "counts": bin_counts(values, edges),
        "nulls": nulls,
        "null_share": nulls / values.size if values.size else 0.0,
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        "mean": _mean(finite) if finite.size else None,
    }


def _mean(finite: Vector) -> float:
    """Return the mean; each value is divided first, so that the sum of huge values does not overflow."""
    return float((finite / finite.size).sum())
