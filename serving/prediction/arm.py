"""A version of a model in one role under a traffic policy."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from skewless.contract.score_differences import ScoreDifferences
from skewless.contract.status import Status
from skewless.contract.traffic import Role
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.record import best_output
from skewless.infra.rollout.counts import LATENCY_EDGES, Histogram, RolloutCounts, score_edges
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.metrics.series import Buckets
from skewless.serving.prediction.scored_batch import ScoredBatch

_MOST_ROWS = 4_096
_PAIRS = 500
_SCORE_EDGES = score_edges()
Floats = npt.NDArray[np.float64]


class Arm:
    """What answers a part of the entities, or is scored besides.

    Args:
        policy: number of the policy.
        shadows: what is scored besides on the rows that this arm answers.

    Attributes:
        origin: what the prediction log says of its predictions.
        counts: what it did under the policy.
    """

    def __init__(
        self, model: ServedModel, role: Role, policy: int, metrics: Metrics, shadows: tuple[Arm, ...] = ()
    ) -> None:
        self.model = model
        self.shadows = shadows
        self.origin = replace(model.origin, role=role, policy=policy)
        self.counts = ArmCounts(metrics, model, role)
        self._same: dict[str, bool] = {}

    def sees_the_same(self, model: ServedModel) -> bool:
        """Say whether it makes the same vectors of the same rows: their plans and vocabularies are equal."""
        known = self._same.get(model.version)
        if known is None:
            known = self._same[model.version] = self.model.package.plan == model.package.plan
        return known


class ArmCounts:
    """Counts what was scored together, many at a time: until then noting it costs less than a microsecond."""

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
        self._pairs: deque[list[float]] = deque(maxlen=_PAIRS)
        self._waiting: list[ScoredBatch] = []
        self._seconds: list[float] = []
        self._waiting_rows = 0

    def count(self, scored: ScoredBatch, requests: int, seconds: Sequence[float] = ()) -> None:
        """Count rows that were scored together, for so many requests.

        Args:
            seconds: what each request took; none, where nobody waited.
        """
        self._requests.value += requests
        self._n_requests += requests
        self._waiting.append(scored)
        self._seconds += seconds
        self._waiting_rows += len(scored.ids)
        if self._waiting_rows >= _MOST_ROWS:
            self._fold()

    def fail(self) -> None:
        """Count a request that got no answer, by the server's doing."""
        self._requests.value += 1
        self._n_requests += 1
        self._failures.value += 1
        self._failed += 1

    def compare(self, answered: ScoredBatch, shadow: ScoredBatch) -> None:
        """Count how a shadow's scores differ from what was answered, row by row."""
        pairs = np.column_stack([best_output(answered.scores), best_output(shadow.scores)])
        pairs = pairs[~np.isnan(pairs).any(axis=1)]
        differences = pairs[:, 1] - pairs[:, 0]
        self._compared += len(pairs)
        self._difference += float(differences.sum())
        self._pairs.extend(pairs[-_PAIRS:].tolist())
        if self._differences is not None:
            self._differences.observe_many(np.abs(differences))

    def vitals(self, at_us: int) -> RolloutCounts:
        """Return what was counted until now."""
        self._fold()
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

    def _fold(self) -> None:
        if not self._waiting:
            return
        scores = np.concatenate([best_output(scored.scores) for scored in self._waiting])
        matrix = np.concatenate([scored.matrix for scored in self._waiting])
        status = np.concatenate([scored.status for scored in self._waiting])
        self._scores.observe_many(scores[~np.isnan(scores)])
        self._latency.observe_many(np.array(self._seconds, dtype=np.float64))
        self._missing += int(np.isnan(matrix).sum())
        self._values += matrix.size
        self._rows += len(scores)
        self._status += np.bincount((status + self._offsets).reshape(-1), minlength=len(self._status))
        self._waiting, self._seconds, self._waiting_rows = [], [], 0
