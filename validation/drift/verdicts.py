"""Decides which columns have drifted: a distance above its limit that chance does not explain; and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from skewless.contract.clock import from_us
from skewless.contract.lifecycle import Watch
from skewless.contract.render import count_text
from skewless.contract.status import BoolArray
from skewless.infra.records.predictions.live_predictions import LivePredictions
from skewless.validation.drift.histograms import (
    Bins,
    Counts,
    Floats,
    Histograms,
    expected_ks,
    expected_psi,
    holm,
    homogeneity,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    smirnov,
)

SCORE, LABEL = "score", "label"
DriftVerdict = Literal["drifted", "steady", "too_few_rows"]
_MOST_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """The drift of one column relative to training.

    Args:
        name: name of the feature, or ``score`` or ``label``.
        trained: number of training rows.
        rows: number of live rows.
        repeats: average number of live rows per row of the feature log; divides the effective sample size.
        distances: ``psi``, ``js`` and ``ks``.
        limits: limits of the watched distances: the declared limit plus the mean by chance for this sample size.
        p: p-value of the distances without drift, adjusted for the number of columns; the smaller, if KS is watched.
        null_share: share of nulls in training and live.
        new_share: share of live values outside of the training range.
        drifted: the verdict.
    """

    name: str
    trained: int
    rows: int
    repeats: float
    distances: Mapping[str, float]
    limits: Mapping[str, float]
    p: float
    null_share: tuple[float, float]
    new_share: float
    drifted: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; values that are not finite are None."""
        numbers = {
            name: {k: _none_if_not_finite(v) for k, v in getattr(self, name).items()}
            for name in ("distances", "limits")
        }
        shares = {
            "null_share": [_none_if_not_finite(share) for share in self.null_share],
            "new_share": _none_if_not_finite(self.new_share),
        }
        return asdict(self) | numbers | shares


def compare(
    trained: Histograms, live: Histograms, watch: Watch, repeats: Mapping[str, float] | None = None
) -> list[ColumnDrift]:
    """Return the drift of each column, in order; with fewer live rows than ``watch.least_rows`` none has drifted.

    Args:
        before: training histograms.
        now: live histograms.
        watch: the limits.
        repeats: of columns whose live rows share rows of the feature log, see ``ColumnDrift``.
    """
    repeat_factors = np.array([(repeats or {}).get(name, 1.0) for name in live.bins.names])
    # Requests that read the same log row repeat one value. Repeats do not change a distance, but make it less certain:
    # so limits and p-values use fewer rows than the distances.
    effective_counts = live.counts / repeat_factors[:, None]
    distances, limits = _distances(trained.counts, live.counts), _limits(trained.counts, effective_counts, watch)
    p = _adjust_p_values(trained.counts, effective_counts, with_ks="ks" in limits)
    drifted = _is_drifted(distances, limits, p, watch) & (live.rows >= watch.least_rows)
    return [
        ColumnDrift(
            name=name,
            trained=int(trained.rows[i]),
            rows=int(live.rows[i]),
            repeats=float(repeat_factors[i]),
            distances={kind: float(values[i]) for kind, values in distances.items()},
            limits={kind: float(values[i]) for kind, values in limits.items()},
            p=float(min(values[i] for values in p.values())),
            null_share=(float(trained.null_share[i]), float(live.null_share[i])),
            new_share=float(live.new_share[i]),
            drifted=bool(drifted[i]),
        )
        for i, name in enumerate(live.bins.names)
    ]


@dataclass(frozen=True, kw_only=True)
class WindowCounts:
    """The predictions of a window, counted; those of its parts add up to the whole, in any order.

    Args:
        rows: number of predictions.
        histograms: of each feature, of the score, and of the label, which has no values yet.
    """

    rows: int
    histograms: Histograms

    def add(self, other: WindowCounts) -> WindowCounts:
        """Return the counts of two parts of a window together."""
        return WindowCounts(rows=self.rows + other.rows, histograms=self.histograms.add(other.histograms))


def count_window(
    profile: Mapping[str, Any], names: Sequence[str], batches: Iterable[LivePredictions] = ()
) -> WindowCounts:
    """Return the counts of live predictions, which are not kept in memory.

    Args:
        profile: profile of the package; see ``skewless.training.curves``.
        names: names of the features, in the order of the vectors.
        batches: the predictions.
    """
    rows, live = 0, Histograms.empty(Bins.of_profile(_profiled_columns(profile, names)))
    for batch in batches:
        rows += len(batch.scores)
        live = live.add_rows(dict(zip(names, batch.vectors.T, strict=True)) | {SCORE: batch.scores})
    return WindowCounts(rows=rows, histograms=live)


def compare_window(
    profile: Mapping[str, Any],
    names: Sequence[str],
    counts: WindowCounts,
    labels: Floats,
    watch: Watch,
    repeats: Mapping[str, float],
) -> dict[str, ColumnDrift]:
    """Return the drift of each feature, and of score and label if profiled.

    Args:
        profile, names: as for ``count_window``.
        counts: of the live predictions.
        labels: known labels of the window, shape ``(n,)``.
        repeats: see ``compare``.
        watch: the limits; ``watch.alpha`` is for features, score and label together.
    """
    columns, live = _profiled_columns(profile, names), counts.histograms.add_rows({LABEL: labels})
    compared = compare(Histograms.of_profile(live.bins, columns), live, watch, repeats)
    return {column.name: column for column in compared}


def describe_distributions(profile: Mapping[str, Any], names: Sequence[str], counts: WindowCounts) -> dict[str, Any]:
    """Return the distributions of the features in training and live, as plain values.

    Args: as ``compare_window``.

    Returns:
        For each feature that has finite training values: ``low`` and ``high``, their range, and ``trained`` and
        ``now``, the share of all values in each bin of this range, from low to high; ``now`` is empty without rows.
    """
    live, columns = counts.histograms, _profiled_columns(profile, names)
    trained = Histograms.of_profile(live.bins, columns)
    described = {}
    for row, name in enumerate(live.bins.names):
        edges = live.bins.edges[row]
        if name in names and edges.size:
            inside = slice(2, edges.size + 1)  # without nulls, and values outside of the training range
            described[name] = {
                "low": columns[name]["min"],
                "high": columns[name]["max"],
                "trained": _shares(trained.counts[row], inside),
                "now": _shares(live.counts[row], inside),
            }
    return described


def _shares(counts: Counts, inside: slice) -> list[float]:
    total = int(counts.sum())
    return [round(float(count) / total, 6) for count in counts[inside]] if total else []


def _profiled_columns(profile: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    columns = {name: profile["features"][name] for name in names}
    return columns | {name: profile[name] for name in (SCORE, LABEL) if profile.get(name)}


def _none_if_not_finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _distances(trained: Counts, live: Counts) -> dict[str, Floats]:
    return {
        "psi": psi(trained, live),
        "js": jensen_shannon(trained, live),
        "ks": kolmogorov_smirnov(trained[:, 1:], live[:, 1:]),
    }


def _limits(trained: Counts, live: Counts, watch: Watch) -> dict[str, Floats]:
    # Two samples of one distribution differ too. The declared limit is for the drift beyond that, at any number of
    # rows.
    by_chance = expected_psi(trained, live)
    limits = {"psi": watch.psi + by_chance}
    if watch.js is not None:
        # Squares are added: the expectation is that of the squared distance, an eighth of PSI's, in bits.
        limits["js"] = np.sqrt(watch.js**2 + by_chance / (8 * np.log(2)))
    if watch.ks is not None:
        limits["ks"] = watch.ks + expected_ks(trained[:, 1:], live[:, 1:])
    return limits


def _adjust_p_values(trained: Counts, live: Counts, *, with_ks: bool) -> dict[str, Floats]:
    """Return p-values by test, adjusted together; nulls have no order, so KS skips their bin."""
    tests = {"bins": homogeneity(trained, live)}
    if with_ks:
        tests["ks"] = smirnov(trained[:, 1:], live[:, 1:])
    return dict(zip(tests, holm(np.stack(list(tests.values()))), strict=True))


def _is_drifted(
    distances: Mapping[str, Floats], limits: Mapping[str, Floats], p: Mapping[str, Floats], watch: Watch
) -> BoolArray:
    # Both conditions: with many rows any difference is significant, and with few rows chance gives large distances.
    is_above = [(distances[kind] >= limits[kind]) & (p.get(kind, p["bins"]) <= watch.alpha) for kind in limits]
    return np.asarray(np.logical_or.reduce(is_above))


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """The drift of one model version in one window, relative to its training data.

    Args:
        since_us, until_us: the window, UTC microseconds, end exclusive.
        rows: predictions in the window.
        watch: the limits.
        features: drift of each feature, in the order of the model.
        score: drift of the score; None: the package has no profile of it.
        label: drift of the labels known by now; None: there are none, or the package has no profile of them.
    """

    model: str
    version: str
    since_us: int
    until_us: int
    rows: int
    watch: Watch
    features: Sequence[ColumnDrift]
    score: ColumnDrift | None = None
    label: ColumnDrift | None = None

    @property
    def drifted(self) -> list[str]:
        """Return the features that have drifted, the largest drift first."""
        columns = [column for column in self.features if column.drifted]
        return [column.name for column in sorted(columns, key=lambda column: -column.distances["psi"])]

    @property
    def share(self) -> float:
        """Return the share of the features that have drifted."""
        return len(self.drifted) / len(self.features) if self.features else 0.0

    @property
    def verdict(self) -> DriftVerdict:
        """Return the verdict: a model has drifted if a large enough share of its features has."""
        if self.rows < self.watch.least_rows:
            return "too_few_rows"
        # Features only: score and label have an alert of their own.
        return "drifted" if self.share >= self.watch.share else "steady"

    @property
    def moved(self) -> list[str]:
        """Return the names of score and label, if they have drifted."""
        return [column.name for column in (self.score, self.label) if column is not None and column.drifted]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "model": self.model,
            "version": self.version,
            "since": from_us(self.since_us).isoformat(),
            "until": from_us(self.until_us).isoformat(),
            "since_us": self.since_us,
            "until_us": self.until_us,
            "rows": self.rows,
            "verdict": self.verdict,
            "share": self.share,
            "limit_share": self.watch.share,
            "drifted": self.drifted,
            "moved": self.moved,
            "features": [column.as_dict() for column in self.features],
            "score": None if self.score is None else self.score.as_dict(),
            "label": None if self.label is None else self.label.as_dict(),
        }

    def sentence(self) -> str:
        """Return the verdict as a sentence."""
        if self.verdict == "too_few_rows":
            return f"{count_text(self.rows, 'prediction')}: drift needs {self.watch.least_rows:,}"
        names = ", ".join(self.drifted[:_MOST_NAMES]) + (", ..." if len(self.drifted) > _MOST_NAMES else "")
        text = f"{len(self.drifted)} of {len(self.features)} features drifted" + (f": {names}" if names else "")
        return text + (f"; {' and '.join(self.moved)} drifted too" if self.moved else "")
