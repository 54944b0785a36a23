"""Shadow scoring: versions that score served rows again, after the reply and only while no request waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from skewless.contract.errors import SkewlessError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.group import Group, make_group_record
from skewless.serving.prediction.scored_batch import ScoredBatch
from skewless.serving.prediction.scoring import Scoring

_MAX_PENDING_ROWS = 10_000
_PAUSE_S = 0.002
_log = EventLogger()


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
        self._pending: deque[tuple[Arm, Group, ScoredBatch]] = deque()
        self._rows = 0
        self._task: asyncio.Task[None] | None = None

    def has_room(self, n: int) -> bool:
        """Return whether n more rows fit."""
        return self._rows + n <= _MAX_PENDING_ROWS

    def put(self, group: Group, scored: ScoredBatch) -> None:
        """Add served rows, for each of their shadows."""
        for arm in group.shadows:
            # If the serving version scored nulls, a difference says nothing about the shadow.
            if scored.degraded:
                self._skip(arm, group.n, "store")
            elif not self.has_room(group.n):
                self._skip(arm, group.n, "behind")
            else:
                self._pending.append((arm, group.for_arm(arm), scored))
                self._rows += group.n
        if self._pending and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def shadow_groups(self, groups: Sequence[Group]) -> Iterator[Group]:
        """Yield the groups of shadows that need more values from the store than the serving version."""
        for group in groups:
            # A shadow that will be skipped must not cost reads.
            if self.has_room(group.n):
                yield from (group.for_arm(arm) for arm in group.shadows if not arm.has_same_vectors(group.model))

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
            arm, group, served = self._pending.popleft()
            try:
                await self._score(arm, group, served)
            except Exception as error:  # noqa: BLE001 - a failure of one shadow must not stop the next
                arm.counts.count_failure()
                self._skip(arm, group.n, "failed")
                if not isinstance(error, SkewlessError):
                    model = arm.model
                    _log.error("shadow_failed", model=model.name, version=model.version, exc_info=error)
            self._rows -= group.n
        # No await since the last look at the queue, so `put` cannot add a group that nothing scores.
        self._task = None

    async def _score(self, arm: Arm, group: Group, served: ScoredBatch) -> None:
        model = arm.model
        vectors = _shadow_vectors(arm, group, served)
        if vectors is None:
            self._skip(arm, group.n, "behind")
            return
        if self._scoring.is_quick(model, group.n):
            scores = self._scoring.score(model, vectors.matrix)
        else:
            scores, _ = await self._scoring.score_in_thread(model, vectors.matrix)
        shadow = ScoredBatch(
            model=model,
            ids=served.ids,
            t=served.t,
            scores=scores,
            matrix=vectors.matrix,
            vectors=vectors,
            degraded=False,
            rows=group.for_arm(arm).policy_rows,
        )
        arm.counts.count(shadow, len(group.tickets))
        arm.counts.compare(served, shadow)
        if self._log is not None:
            self._log.offer(make_group_record(shadow, group))

    def _skip(self, arm: Arm, n: int, reason: str) -> None:
        self._metrics.shadow_skipped(arm.model.name, arm.model.version, reason).inc(n)


def _shadow_vectors(arm: Arm, group: Group, served: ScoredBatch) -> ServiceVectors | None:
    """Return the vectors for a shadow: those of the serving version if plans are equal, otherwise new ones.

    None: the keys of the shadow were not read, because its rows did not fit.
    """
    if served.vectors is not None and arm.has_same_vectors(served.model):
        return served.vectors
    stored = group.stored
    if stored is None or not stored.values.keys() >= {name for name in group.keys if name is not None}:
        return None
    return group.build_vectors()
