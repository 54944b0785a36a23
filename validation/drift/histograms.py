"""Histograms of several columns over the bins of a training profile; they add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array

Floats = npt.NDArray[np.float64]
_NULLS, _BELOW = 0, 1


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The bins of several columns.

    A column with edges ``e`` has first a bin of nulls (NaN), then one of values below all of training, those between
    its edges (``e[i] <= value < e[i + 1]``, where ``e[0]`` is training's smallest value and the last one its largest,
    which belongs to the bin before), then one above all of training. Infinities are in the outer bins of training.

    Args:
        names: of the columns.
        edges: of each column, increasing; none where training had no finite value.
    """

    names: tuple[str, ...]
    edges: tuple[Floats, ...]

    @property
    def width(self) -> int:
        """Return the number of bins of the column that has most; others are filled up with empty ones."""
        return max((edges.size for edges in self.edges), default=0) + 2

    @classmethod
    def of_profile(cls, features: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the bins of profiled columns (``skewless.training.profile``), by name."""
        return cls(names=tuple(features), edges=tuple(_edges(feature) for feature in features.values()))

    def places(self, column: int, values: Floats) -> Int64Array:
        """Return the bin of each value, shape ``(n,)``."""
        edges = self.edges[column]
        if not edges.size:
            return np.where(np.isnan(values), _NULLS, _BELOW)
        places = np.searchsorted(edges, values, side="right").astype(np.int64) + 1
        places[np.isnan(values)] = _NULLS
        if np.isinf(values).any():
            places[np.isposinf(values)] = edges.size
            places[np.isneginf(values)] = _BELOW + 1
        return places


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """How many values of each column lie in each of its bins.

    Args:
        bins: what they count.
        counts: shape ``(n_columns, bins.width)``.
    """

    bins: Bins
    counts: Int64Array

    @classmethod
    def empty(cls, bins: Bins) -> Self:
        """Return histograms of no values."""
        return cls(bins=bins, counts=np.zeros((len(bins.names), bins.width), dtype=np.int64))

    @classmethod
    def of_profile(cls, bins: Bins, features: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return what a profile counted in training, over the bins made of it."""
        counts = np.zeros((len(bins.names), bins.width), dtype=np.int64)
        for row, (feature, edges) in enumerate(zip(features.values(), bins.edges, strict=True)):
            counts[row, _NULLS] = feature["nulls"]
            first = _BELOW + 1 if edges.size else _BELOW
            counts[row, first : first + len(feature["counts"])] = feature["counts"]
        return cls(bins=bins, counts=counts)

    @property
    def rows(self) -> Int64Array:
        """Return how many values of each column were counted, nulls too, shape ``(n_columns,)``."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def null_share(self) -> Floats:
        """Return the share of nulls of each column, NaN without rows."""
        return _share(self.counts[:, _NULLS], self.rows)

    @property
    def new_share(self) -> Floats:
        """Return the share of values outside what training had seen, NaN without rows."""
        above = np.array([edges.size + 1 for edges in self.bins.edges], dtype=np.int64)
        columns = np.arange(len(above))
        outside = self.counts[:, _BELOW] + np.where(above > _BELOW, self.counts[columns, above], 0)
        return _share(outside, self.rows)

    def plus(self, columns: Mapping[str, Floats]) -> Self:
        """Return these and the values of further rows.

        Args:
            columns: values by column, each of shape ``(n,)``; those without bins are left out, others may be missing.
        """
        counts = self.counts.copy()
        for row, name in enumerate(self.bins.names):
            if name in columns:
                counts[row] += np.bincount(self.bins.places(row, columns[name]), minlength=self.bins.width)
        return type(self)(bins=self.bins, counts=counts)

    def merged(self, other: Self) -> Self:
        """Return these and others over the same bins."""
        return type(self)(bins=self.bins, counts=self.counts + other.counts)


def _edges(feature: Mapping[str, Any]) -> Floats:
    if feature["min"] is None:
        return np.empty(0, dtype=np.float64)
    # The largest value belongs to the last bin of training: what is above it begins with the next float.
    inner, beyond = feature["edges"], np.nextafter(feature["max"], np.inf)
    return np.array([feature["min"], *inner, beyond], dtype=np.float64)


def _share(part: Int64Array, whole: Int64Array) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))
