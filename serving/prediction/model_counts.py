"""Counters of one model version, bound to their labels once instead of at each request."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Status, StatusArray
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.scored_batch import ScoredBatch

_SECONDS = 1e-6
_NO_ROW = (int(Status.NOT_FOUND), int(Status.UNAVAILABLE))
_FEW_ROWS = 8  # up to this many rows, loops are faster than numpy


class ModelCounts:
    """Count the predictions of one model version."""

    def __init__(self, metrics: Metrics, model: ServedModel) -> None:
        labels = (model.name, model.version)
        self._ok = metrics.requests(*labels, "ok")
        self._degraded = metrics.requests(*labels, "degraded")
        self._rows = metrics.rows(*labels)
        self._views = [ViewCounts(metrics, view.name) for view in model.plan.all_views]
        bounded = model.bounds.names if model.bounds is not None else ()
        self._outside = [metrics.out_of_bounds(*labels, name) for name in bounded]
        self._limits: list[int] = model.freshness_us.tolist()
        self._has_limits = any(self._limits)  # without limits nothing is stale

    def count(self, scored: ScoredBatch, requests: int) -> None:
        """Count the rows of a scored batch that served a number of requests."""
        (self._degraded if scored.degraded else self._ok).inc(requests)
        self._rows.inc(len(scored.ids))
        if scored.outside is not None:
            for count, n in zip(self._outside, scored.outside.sum(axis=0).tolist(), strict=True):
                count.inc(n)
        vectors = scored.vectors
        if vectors is None:
            return
        for view, watermark in zip(self._views, vectors.watermark.tolist(), strict=True):
            view.show_watermark(watermark)
        if len(scored.ids) <= _FEW_ROWS:
            self._count_few(vectors, scored.t)
            return
        ages = (scored.ages_us * _SECONDS).astype(np.float64, copy=False)
        stale = scored.stale.sum(axis=0).tolist() if self._has_limits else self._limits
        if not vectors.status.any():  # all are PRESENT
            for i, view in enumerate(self._views):
                view.count_present(ages[:, i], stale[i])
            return
        has_row = scored.row_mask
        for i, view in enumerate(self._views):
            view.count(scored.status[:, i], ages[has_row[:, i], i], stale[i])

    def _count_few(self, vectors: ServiceVectors, t: int) -> None:
        watermarks = vectors.watermark.tolist() if self._has_limits else self._limits
        for codes, times in zip(vectors.status.tolist(), vectors.event_ts.tolist(), strict=True):
            each = zip(self._views, codes, times, self._limits, watermarks, strict=True)
            for view, code, event_ts, limit, watermark in each:
                age = t - event_ts
                view.count_one(code, age * _SECONDS, old=0 < limit < age, frozen=0 < limit < t - watermark)


class ViewCounts:
    """Count the rows of one view by status, age and staleness."""

    def __init__(self, metrics: Metrics, view: str) -> None:
        self._by_status = [metrics.reads(view, status.name) for status in Status]
        self._ages = metrics.ages(view)
        self._stale = metrics.stale(view)
        self._watermark = metrics.watermark(view)

    def show_watermark(self, watermark_us: int) -> None:
        """Show the watermark of the view, microseconds; 0, unknown, keeps the previous value."""
        if watermark_us:
            self._watermark.set(watermark_us / 1e6)

    def count(self, status: StatusArray, ages: npt.NDArray[np.float64], stale: int = 0) -> None:
        """Count many rows; takes 7 us for 100 rows.

        Args:
            status: of each row, shape ``(n,)``.
            ages: ages of the rows that exist, seconds, in any order.
            stale: number of rows older than the freshness limit.
        """
        for series, n in zip(self._by_status, np.bincount(status, minlength=len(Status)).tolist(), strict=True):
            series.value += n
        self._ages.observe_many(ages)
        self._stale.value += stale

    def count_present(self, ages: npt.NDArray[np.float64], stale: int) -> None:
        """Count many rows that are all PRESENT; arguments as in ``count``."""
        self._by_status[Status.PRESENT].value += ages.size
        self._ages.observe_many(ages)
        self._stale.value += stale

    def count_one(self, code: int, age: float, *, old: bool, frozen: bool) -> None:
        """Count one row.

        Args:
            age: seconds; ignored if the row does not exist.
            old: whether the row is older than the freshness limit.
            frozen: whether the view's watermark is older than the freshness limit.
        """
        self._by_status[code].value += 1
        has_row = code not in _NO_ROW
        if has_row:
            self._ages.observe(age)
        self._stale.value += (old and has_row) or (frozen and code != Status.UNAVAILABLE)
