"""Versions that are scored besides, after the reply, on the same values; only while nobody waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import structlog

from skewless.contract.errors import SkewlessError
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.predictions.writer import PredictionWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.record import ReadTimes, record_of
from skewless.serving.prediction.scored_batch import ScoredBatch
from skewless.serving.prediction.scoring import Scoring
from skewless.serving.prediction.ticket import Group

_MOST_ROWS = 10_000
_PAUSE_S = 0.002
_log = structlog.get_logger()


class _ShadowJob(NamedTuple):
    arm: Arm
    group: Group
    scored: ScoredBatch
    times: ReadTimes
    skew_us: int


class Shadows:
    """Scores one group after the other; what it has no room for is left out and counted.

    Args:
        log: where predictions are kept; None: nowhere.
        busy: says whether requests wait for the event loop.
    """

    def __init__(self, *, log: PredictionWriter | None, metrics: Metrics, busy: Callable[[], bool]) -> None:
        self._log = log
        self._metrics = metrics
        self._busy = busy
        self._scoring = Scoring()
        self._waiting: deque[_ShadowJob] = deque()
        self._rows = 0
        self._task: asyncio.Task[None] | None = None

    def room(self, n: int) -> bool:
        """Say whether so many rows more would be taken."""
        return self._rows + n <= _MOST_ROWS

    def put(self, group: Group, scored: ScoredBatch, times: ReadTimes, skew_us: int) -> None:
        """Take rows that were answered, for each shadow of their arm."""
        for arm in group.arm.shadows if group.arm is not None else ():
            if scored.degraded:
                self._skip(arm, group.n, "store")
            elif not self.room(group.n):
                self._skip(arm, group.n, "behind")
            else:
                self._waiting.append(_ShadowJob(arm, group, scored, times, skew_us))
                self._rows += group.n
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def beside(self, groups: Sequence[Group]) -> Iterator[Group]:
        """Yield groups as those shadows see them that need more of the store than the answer does."""
        for group in groups:
            if group.arm is None or not self.room(group.n):
                continue
            for arm in group.arm.shadows:
                if not arm.sees_the_same(group.model):
                    yield group.of(arm)

    async def close(self) -> None:
        """Return when all that was taken is scored."""
        if self._task is not None:
            await self._task
        self._scoring.close()

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(_PAUSE_S if self._busy() else 0)
            if self._busy():
                continue
            job = self._waiting.popleft()
            try:
                await self._score(job)
            except Exception as error:  # noqa: BLE001 - whatever a shadow does wrong must not stop the next
                self._failed(job, error)
            self._rows -= job.group.n
        self._task = None

    async def _score(self, job: _ShadowJob) -> None:
        arm, model = job.arm, job.arm.model
        vectors = _vectors(job)
        if vectors is None:
            self._skip(arm, job.group.n, "behind")
            return
        if self._scoring.is_quick(model, job.group.n):
            scores = self._scoring.score(model, vectors.matrix)
        else:
            scores, _ = await self._scoring.score_beside(model, vectors.matrix, contributions=False)
        shadow = ScoredBatch(
            model=model,
            ids=job.scored.ids,
            t=job.scored.t,
            scores=scores,
            matrix=vectors.matrix,
            looked_up=vectors,
            degraded=False,
        )
        arm.counts.count(shadow, len(job.group.tickets))
        arm.counts.compare(job.scored, shadow)
        if self._log is not None:
            self._log.offer(record_of(shadow, arm.origin, job.group.rows, job.times, job.skew_us))

    def _skip(self, arm: Arm, n: int, reason: str) -> None:
        self._metrics.shadow_skipped(arm.model.name, arm.model.version, reason).inc(n)

    def _failed(self, job: _ShadowJob, error: Exception) -> None:
        model = job.arm.model
        job.arm.counts.fail()
        self._skip(job.arm, job.group.n, "failed")
        if not isinstance(error, SkewlessError):
            _log.error("shadow_failed", model=model.name, version=model.version, exc_info=error)


def _vectors(job: _ShadowJob) -> ServiceVectors | None:
    """Return what the shadow sees: what was answered on, where it sees the same, else its own of the same read.

    None: its keys were not read, since there was no room for its rows.
    """
    arm, group, scored = job.arm, job.group, job.scored
    if scored.looked_up is not None and arm.sees_the_same(scored.model):
        return scored.looked_up
    stored, own = group.stored, group.of(arm)
    if stored is None or not stored.values.keys() >= {name for name in own.names if name is not None}:
        return None
    rows = [None if name is None else stored.values[name] for name in own.names]
    reader = arm.model.reader
    return reader.vectors(own.names, rows, reader.check_ages(stored.marker_status, own.t), own.t, own.ask)
