"""Shadow scoring: versions that score served rows again, after the reply and only while no request waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from skewless.contract.errors import SkewlessError
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.predictions.writer import PredictionWriter
from skewless.infra.telemetry.logger import EventLogger
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.record import ReadTimes, make_record
from skewless.serving.prediction.scored_batch import ScoredBatch
from skewless.serving.prediction.scoring import Scoring
from skewless.serving.prediction.ticket import Group

_MAX_PENDING_ROWS = 10_000
_PAUSE_S = 0.002
_log = EventLogger()


class _ShadowJob(NamedTuple):
    arm: Arm
    group: Group
    scored: ScoredBatch
    times: ReadTimes
    skew_us: int


class Shadows:
    """Score one group after the other; groups that do not fit are skipped and counted.

    Args:
        log: receives each prediction; None: predictions are not logged.
        busy: returns whether requests wait for the event loop.
    """

    def __init__(self, *, log: PredictionWriter | None, metrics: Metrics, busy: Callable[[], bool]) -> None:
        self._log = log
        self._metrics = metrics
        self._busy = busy
        self._scoring = Scoring()
        self._pending: deque[_ShadowJob] = deque()
        self._rows = 0
        self._task: asyncio.Task[None] | None = None

    def has_room(self, n: int) -> bool:
        """Return whether n more rows fit."""
        return self._rows + n <= _MAX_PENDING_ROWS

    def put(self, group: Group, scored: ScoredBatch, times: ReadTimes, skew_us: int) -> None:
        """Add served rows, for each shadow of their arm."""
        for arm in group.arm.shadows if group.arm is not None else ():
            # If the serving version scored nulls, a difference says nothing about the shadow.
            if scored.degraded:
                self._skip(arm, group.n, "store")
            elif not self.has_room(group.n):
                self._skip(arm, group.n, "behind")
            else:
                self._pending.append(_ShadowJob(arm, group, scored, times, skew_us))
                self._rows += group.n
        if self._pending and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def shadow_groups(self, groups: Sequence[Group]) -> Iterator[Group]:
        """Yield the groups of shadows that need more values from the store than the serving version."""
        for group in groups:
            # A shadow that will be skipped must not cost reads.
            if group.arm is None or not self.has_room(group.n):
                continue
            for arm in group.arm.shadows:
                if not arm.has_same_vectors(group.model):
                    yield group.for_arm(arm)

    async def close(self) -> None:
        """Return when all added rows are scored."""
        if self._task is not None:
            await self._task
        self._scoring.close()

    async def _work(self) -> None:
        while self._pending:
            await asyncio.sleep(_PAUSE_S if self._busy() else 0)
            if self._busy():
                continue
            job = self._pending.popleft()
            try:
                await self._score(job)
            except Exception as error:  # noqa: BLE001 - a failure of one shadow must not stop the next
                self._count_failure(job, error)
            self._rows -= job.group.n
        # No await since the last look at the queue, so `put` cannot add a job that nothing scores.
        self._task = None

    async def _score(self, job: _ShadowJob) -> None:
        arm, model = job.arm, job.arm.model
        vectors = _shadow_vectors(job)
        if vectors is None:
            self._skip(arm, job.group.n, "behind")
            return
        if self._scoring.is_quick(model, job.group.n):
            scores = self._scoring.score(model, vectors.matrix)
        else:
            scores, _ = await self._scoring.score_in_thread(model, vectors.matrix, contributions=False)
        shadow = ScoredBatch(
            model=model,
            ids=job.scored.ids,
            t=job.scored.t,
            scores=scores,
            matrix=vectors.matrix,
            vectors=vectors,
            degraded=False,
        )
        arm.counts.count(shadow, len(job.group.tickets))
        arm.counts.compare(job.scored, shadow)
        if self._log is not None:
            self._log.offer(make_record(shadow, arm.origin, job.group.rows, job.times, job.skew_us))

    def _skip(self, arm: Arm, n: int, reason: str) -> None:
        self._metrics.shadow_skipped(arm.model.name, arm.model.version, reason).inc(n)

    def _count_failure(self, job: _ShadowJob, error: Exception) -> None:
        model = job.arm.model
        job.arm.counts.count_failure()
        self._skip(job.arm, job.group.n, "failed")
        if not isinstance(error, SkewlessError):
            _log.error("shadow_failed", model=model.name, version=model.version, exc_info=error)


def _shadow_vectors(job: _ShadowJob) -> ServiceVectors | None:
    """Return the vectors for a shadow: those of the serving version if plans are equal, otherwise new ones.

    None: the keys of the shadow were not read, because its rows did not fit.
    """
    arm, group, scored = job.arm, job.group, job.scored
    if scored.vectors is not None and arm.has_same_vectors(scored.model):
        return scored.vectors
    stored, shadow_group = group.stored, group.for_arm(arm)
    if stored is None or not stored.values.keys() >= {name for name in shadow_group.keys if name is not None}:
        return None
    rows = [None if name is None else stored.values[name] for name in shadow_group.keys]
    reader = arm.model.reader
    return reader.vectors(
        shadow_group.keys,
        rows,
        reader.check_ages(stored.marker_status, shadow_group.t),
        shadow_group.t,
        shadow_group.parsed_rows,
    )
