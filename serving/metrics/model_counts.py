"""What the metrics count of one model, looked up once."""

from __future__ import annotations

import numpy as np

from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.metrics.view_counts import ViewCounts
from skewless.serving.prediction.answer import ScoredBatch

_SECONDS = 1e-6
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
