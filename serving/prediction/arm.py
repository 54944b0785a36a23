"""A version of a model in one role under a traffic policy, and the counts of versions and views."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from skewless.contract.score_differences import ScoreDifferences
from skewless.contract.status import Status, StatusArray
from skewless.contract.traffic import Role
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.rollout.counts import LATENCY_EDGES, Histogram, RolloutCounts, score_edges
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.infra.records.predictions.record import largest_output
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.metrics.series import Buckets
from skewless.serving.prediction.scored_batch import ScoredBatch

_MAX_PENDING_ROWS = 512  # more would leave the processor's cache
_MAX_PAIRS = 500
_SCORE_EDGES = score_edges()
Floats = npt.NDArray[np.float64]
_SECONDS = 1e-6
_NO_ROW = (int(Status.NOT_FOUND), int(Status.UNAVAILABLE))
_FEW_ROWS = 5  # up to this many rows, loops are faster than numpy


class Arm:
    """A model version that serves a share of the entities or shadows another version.

    Args:
        policy: number of the policy.
        shadows: versions that score the rows of this arm again.
        lead: arm with the same shadows whose rows are scored in one batch with those of this arm; None: none.

    Attributes:
        origin: columns of the prediction log that identify the version and its role.
        counts: its requests, scores and errors under the policy.
    """

    def __init__(
        self,
        model: ServedModel,
        role: Role,
        policy: int,
        metrics: Metrics,
        shadows: tuple[Arm, ...] = (),
        lead: Arm | None = None,
    ) -> None:
        self.model = model
        self.shadows = shadows
        self.lead = lead or self
        self.origin = replace(model.origin, role=role, policy=policy)
        self.counts = ArmCounts(metrics, model, role)
        self._is_same_plan: dict[str, bool] = {}

    def has_same_vectors(self, model: ServedModel) -> bool:
        """Return whether a model builds the same vectors from the same rows: its plan and vocabularies are equal."""
        is_same = self._is_same_plan.get(model.version)
        if is_same is None:
            is_same = self._is_same_plan[model.version] = self.model.package.plan == model.package.plan
        return is_same


class ArmCounts:
    """Count scored batches for the rollout.

    Batches are collected and counted together, since a numpy call costs about the same for one batch as for many.
    """

    def __init__(self, metrics: Metrics, model: ServedModel, role: Role) -> None:
        labels = (model.name, model.version)
        self._requests = metrics.arm_requests(*labels, role)
        self._failures = metrics.arm_failures(*labels, role)
        self._differences = metrics.shadow_difference(*labels) if role == "shadow" else None
        self._views = [view.name for view in model.plan.all_views]
        self._status = np.zeros(len(self._views) * len(Status), dtype=np.int64)
        self._offsets = np.arange(len(self._views)) * len(Status)
        self._latency, self._scores = Buckets(LATENCY_EDGES), Buckets(_SCORE_EDGES)
        self._n_requests = self._failed = self._rows = self._missing = self._values = 0
        self._compared, self._difference = 0, 0.0
        self._pairs: deque[list[float]] = deque(maxlen=_MAX_PAIRS)
        self._pending: list[tuple[Floats, Floats, StatusArray]] = []
        self._latencies: list[float] = []
        self._pending_rows = 0

    def count(
        self, scored: ScoredBatch, requests: int, seconds: Sequence[float] = (), rows: slice = slice(None)
    ) -> None:
        """Count the rows of a scored batch that served a number of requests.

        Args:
            seconds: latency of each request; empty for shadows, which no caller waits for.
            rows: of this version.
        """
        self._requests.value += requests
        self._n_requests += requests
        scores = scored.scores[rows]
        self._pending.append((scores, scored.matrix[rows], scored.status[rows]))
        self._latencies += seconds
        self._pending_rows += len(scores)
        if self._pending_rows >= _MAX_PENDING_ROWS:
            self._count_pending()

    def count_failure(self) -> None:
        """Count a request that failed through the server's fault."""
        self._requests.value += 1
        self._n_requests += 1
        self._failures.value += 1
        self._failed += 1

    def compare(self, served: ScoredBatch, shadow: ScoredBatch) -> None:
        """Count the differences between a shadow's scores and the served scores, row by row."""
        pairs = np.column_stack([largest_output(served.scores), largest_output(shadow.scores)])
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        differences = pairs[:, 1] - pairs[:, 0]
        self._compared += len(pairs)
        self._difference += float(differences.sum())
        self._pairs.extend(pairs[-_MAX_PAIRS:].tolist())
        if self._differences is not None:
            self._differences.observe_many(np.abs(differences))

    def read_counts(self, at_us: int) -> RolloutCounts:
        """Return the counts up to now."""
        self._count_pending()
        by_status = self._status.reshape(len(self._views), len(Status)).tolist()
        return RolloutCounts(
            requests=self._n_requests,
            failed=self._failed,
            rows=self._rows,
            latency=Histogram(LATENCY_EDGES, tuple(self._latency.counts)),
            scores=Histogram(_SCORE_EDGES, tuple(self._scores.counts)),
            missing=self._missing,
            values=self._values,
            by_status={
                view: {status.name: n for status, n in zip(Status, counts, strict=True) if n}
                for view, counts in zip(self._views, by_status, strict=True)
            },
            differences=ScoreDifferences(
                rows=self._compared,
                total=self._difference,
                pairs=np.array(self._pairs, dtype=np.float64).reshape(-1, 2),
            ),
            at_us=at_us,
        )

    def _count_pending(self) -> None:
        if not self._pending:
            return
        outputs, matrices, statuses = zip(*self._pending, strict=True)
        scores = largest_output(np.concatenate(outputs))
        matrix, status = np.concatenate(matrices), np.concatenate(statuses)
        self._scores.observe_many(scores[~np.isnan(scores)])
        self._latency.observe_many(np.array(self._latencies, dtype=np.float64))
        self._missing += int(np.isnan(matrix).sum())
        self._values += matrix.size
        self._rows += len(scores)
        # One call for all views: each view has its own range of numbers.
        self._status += np.bincount((status + self._offsets).reshape(-1), minlength=len(self._status))
        self._pending, self._latencies, self._pending_rows = [], [], 0


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
        self.count_requests(scored, requests, 0, len(scored.ids))
        self.count_views(scored)

    def count_requests(self, scored: ScoredBatch, requests: int, start: int, stop: int) -> None:
        """Count the requests that the rows ``start`` to ``stop``, end exclusive, served."""
        (self._degraded if scored.degraded else self._ok).inc(requests)
        self._rows.inc(stop - start)
        if scored.outside is not None:
            for count, n in zip(self._outside, scored.outside[start:stop].sum(axis=0).tolist(), strict=True):
                count.inc(n)

    def count_views(self, scored: ScoredBatch) -> None:
        """Count the status and age of each view; the series of a view are shared by all versions."""
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
        if not vectors.status.tobytes().strip(b"\0"):  # all are PRESENT; `any` takes longer
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
