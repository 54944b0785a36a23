"""Which columns have drifted: a distance counts above its limit and where chance does not explain it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skewless.contract.lifecycle import Watch
from skewless.contract.status import BoolArray
from skewless.infra.predictions.live_predictions import LivePredictions
from skewless.validation.drift.histograms import Bins, Floats, Histograms
from skewless.validation.drift.measures import (
    Counts,
    expected_js,
    expected_ks,
    expected_psi,
    holm,
    homogeneity,
    js,
    ks,
    psi,
    smirnov,
)


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """How far one column is from training.

    Args:
        name: of the feature, or ``score`` or ``label``.
        trained: rows of training.
        rows: rows of the live window.
        repeats: how many of them rest on one row of the feature log, on average; chance sees so many times fewer.
        distances: ``psi``, ``js`` and ``ks``.
        limits: of those distances that are watched: what is declared, and what chance adds on average to so few rows.
        p: chance of such distances without drift, adjusted for the number of columns; the smaller one, if KS is
            watched too.
        null_share: share of nulls in training and live.
        new_share: share of live values outside of what training had seen.
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
        """Return plain values; what is not finite is None."""
        numbers = {name: {k: _finite(v) for k, v in getattr(self, name).items()} for name in ("distances", "limits")}
        shares = {"null_share": [_finite(share) for share in self.null_share], "new_share": _finite(self.new_share)}
        return asdict(self) | numbers | shares


def compare(
    before: Histograms, now: Histograms, watch: Watch, repeats: Mapping[str, float] | None = None
) -> list[ColumnDrift]:
    """Return the drift of each column, in order; none has drifted with fewer live rows than ``watch.least_rows``.

    Args:
        before: of training.
        now: of the live window.
        watch: limits.
        repeats: of the columns whose live rows are not all drawn by themselves, see ``ColumnDrift``.
    """
    design = np.array([(repeats or {}).get(name, 1.0) for name in now.bins.names])
    drawn = now.counts / design[:, None]
    distances, limits = _distances(before.counts, now.counts), _limits(before.counts, drawn, watch)
    p = _adjusted(before.counts, drawn, with_ks="ks" in limits)
    drifted = _drifted(distances, limits, p, watch) & (now.rows >= watch.least_rows)
    return [
        ColumnDrift(
            name=name,
            trained=int(before.rows[i]),
            rows=int(now.rows[i]),
            repeats=float(design[i]),
            distances={kind: float(values[i]) for kind, values in distances.items()},
            limits={kind: float(values[i]) for kind, values in limits.items()},
            p=float(min(values[i] for values in p.values())),
            null_share=(float(before.null_share[i]), float(now.null_share[i])),
            new_share=float(now.new_share[i]),
            drifted=bool(drifted[i]),
        )
        for i, name in enumerate(now.bins.names)
    ]


SCORE, LABEL = "score", "label"


def compare_window(
    profile: Mapping[str, Any],
    names: Sequence[str],
    pieces: Iterable[LivePredictions],
    labels: Floats,
    watch: Watch,
    repeats: Mapping[str, float],
) -> tuple[int, dict[str, ColumnDrift]]:
    """Return how many predictions there were, and the drift of each feature, of score and label if profiled.

    Args:
        profile: of the package; see ``skewless.training.profile``.
        names: of the features, in the order of the vectors.
        pieces: the live predictions; none of them stays in memory.
        labels: those that are known of the window, shape ``(n,)``.
        repeats: see ``compare``.
        watch: the limits. Features, score and label are judged as one family: ``watch.alpha`` is for all of them.
    """
    columns = {name: profile["features"][name] for name in names}
    columns |= {name: profile[name] for name in (SCORE, LABEL) if profile.get(name)}
    bins = Bins.of_profile(columns)
    rows, now = 0, Histograms.empty(bins).plus({LABEL: labels})
    for piece in pieces:
        rows += len(piece.scores)
        now = now.plus(dict(zip(names, piece.vectors.T, strict=True)) | {SCORE: piece.scores})
    compared = compare(Histograms.of_profile(bins, columns), now, watch, repeats)
    return rows, {column.name: column for column in compared}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _distances(before: Counts, now: Counts) -> dict[str, Floats]:
    return {"psi": psi(before, now), "js": js(before, now), "ks": ks(before[:, 1:], now[:, 1:])}


def _limits(before: Counts, now: Counts, watch: Watch) -> dict[str, Floats]:
    limits = {"psi": watch.psi + expected_psi(before, now)}
    if watch.js is not None:
        limits["js"] = np.sqrt(watch.js**2 + expected_js(before, now))
    if watch.ks is not None:
        limits["ks"] = watch.ks + expected_ks(before[:, 1:], now[:, 1:])
    return limits


def _adjusted(before: Counts, now: Counts, *, with_ks: bool) -> dict[str, Floats]:
    """Return p-values by test, all of them adjusted together; nulls have no order, so KS leaves them out."""
    tests = {"bins": homogeneity(before, now)}
    if with_ks:
        tests["ks"] = smirnov(before[:, 1:], now[:, 1:])
    return dict(zip(tests, holm(np.stack(list(tests.values()))), strict=True))


def _drifted(
    distances: Mapping[str, Floats], limits: Mapping[str, Floats], p: Mapping[str, Floats], watch: Watch
) -> BoolArray:
    found = [(distances[kind] >= limits[kind]) & (p.get(kind, p["bins"]) <= watch.alpha) for kind in limits]
    return np.asarray(np.logical_or.reduce(found))
