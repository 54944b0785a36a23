"""Histograms of several columns over the bins of a training profile; histograms can be added."""

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
