"""What the metrics count of one model, looked up once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Status, StatusArray
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.scored_batch import ScoredBatch

_SECONDS = 1e-6
_ABSENT = (int(Status.NOT_FOUND), int(Status.UNAVAILABLE))
_FEW = 8  # up to here loops are faster than numpy


class ModelCounts:
    """Counts the answers of one model version."""

    def __init__(self, metrics: Metrics, model: ServedModel) -> None:
        labels = (model.name, model.version)
        self._ok = metrics.requests(*labels, "ok")
        self._degraded = metrics.requests(*labels, "degraded")
        self._rows = metrics.rows(*labels)
        self._views = [ViewCounts(metrics, view.name) for view in model.plan.all_views]
        bounded = model.bounds.names if model.bounds is not None else ()
        self._outside = [metrics.out_of_bounds(*labels, name) for name in bounded]
        self._limits: list[int] = model.freshness_us.tolist()
        self._limited = any(self._limits)  # without limits nothing is stale

    def count(self, scored: ScoredBatch, requests: int) -> None:
        """Count the rows that were scored together, for so many requests."""
        (self._degraded if scored.degraded else self._ok).inc(requests)
        self._rows.inc(len(scored.ids))
        if scored.outside is not None:
            for count, n in zip(self._outside, scored.outside.sum(axis=0).tolist(), strict=True):
                count.inc(n)
        looked_up = scored.looked_up
        if looked_up is None:
            return
        for view, moment in zip(self._views, looked_up.watermark.tolist(), strict=True):
            view.show_watermark(moment)
        if len(scored.ids) <= _FEW:
            self._count_few(looked_up, scored.t)
            return
        ages = (scored.ages_us * _SECONDS).astype(np.float64, copy=False)
        stale = scored.stale.sum(axis=0).tolist() if self._limited else self._limits
        if not looked_up.status.any():  # all are PRESENT
            for i, view in enumerate(self._views):
                view.count_present(ages[:, i], stale[i])
            return
        found = scored.found
        for i, view in enumerate(self._views):
            view.count(scored.status[:, i], ages[found[:, i], i], stale[i])

    def _count_few(self, looked_up: ServiceVectors, t: int) -> None:
        watermarks = looked_up.watermark.tolist() if self._limited else self._limits
        for codes, times in zip(looked_up.status.tolist(), looked_up.event_ts.tolist(), strict=True):
            each = zip(self._views, codes, times, self._limits, watermarks, strict=True)
            for view, code, event_ts, limit, watermark in each:
                age = t - event_ts
                view.count_one(code, age * _SECONDS, old=0 < limit < age, frozen=0 < limit < t - watermark)


class ViewCounts:
    """Counts one view's rows by status, age and staleness; made once a view, not once a request."""

    def __init__(self, metrics: Metrics, view: str) -> None:
        self._by_status = [metrics.reads(view, status.name) for status in Status]
        self._ages = metrics.ages(view)
        self._stale = metrics.stale(view)
        self._watermark = metrics.watermark(view)

    def show_watermark(self, moment_us: int) -> None:
        """Show up to when all that had arrived was in the view, microseconds; 0, unknown, leaves what was shown."""
        if moment_us:
            self._watermark.set(moment_us / 1e6)

    def count(self, status: StatusArray, ages: npt.NDArray[np.float64], stale: int = 0) -> None:
        """Count many rows; 7 us for 100.

        Args:
            status: of each row, shape ``(n,)``.
            ages: seconds, of those rows that were found, in any order.
            stale: how many were older than the freshness limit.
        """
        for series, n in zip(self._by_status, np.bincount(status, minlength=len(Status)).tolist(), strict=True):
            series.value += n
        self._ages.observe_many(ages)
        self._stale.value += stale

    def count_present(self, ages: npt.NDArray[np.float64], stale: int) -> None:
        """Count many rows that are all PRESENT; as in ``count``."""
        self._by_status[Status.PRESENT].value += ages.size
        self._ages.observe_many(ages)
        self._stale.value += stale

    def count_one(self, code: int, age: float, *, old: bool, frozen: bool) -> None:
        """Count one row.

        Args:
            age: seconds; it counts if a row was found.
            old: whether the row, if one was found, is older than the freshness limit.
            frozen: whether its view has not been updated for so long.
        """
        self._by_status[code].value += 1
        found = code not in _ABSENT
        if found:
            self._ages.observe(age)
        self._stale.value += (old and found) or (frozen and code != Status.UNAVAILABLE)
