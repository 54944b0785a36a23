"""Takes outcomes into the outcome log: what comes while one file is written goes into the next one together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from skewless.contract.clock import Clock
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plan import FeaturePlan
from skewless.infra.outcomes.writer import OutcomeWriter
from skewless.serving.group_commit import GroupCommit
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable

_SOURCE = "http"


class Feedback:
    """Checks outcomes and makes them durable.

    Args:
        writer: where they go.
        models: whose keys and fields are known.
        metrics: counts what was taken.
        clock: tells when.
        most: rows of one request.
    """

    def __init__(self, writer: OutcomeWriter, models: ModelTable, metrics: Metrics, clock: Clock, *, most: int) -> None:
        self._writer = writer
        self._models = models
        self._metrics = metrics
        self._clock = clock
        self._most = most
        self._commit = GroupCommit(self._write)

    def parse(self, rows: Sequence[object]) -> list[Outcome]:
        """Return the outcomes of a request.

        Raises:
            RequestError: a row is wrong; it is named by its place.
        """
        return parse_feedback(rows, self._plan_of, self._clock.now_us(), self._most)

    async def take(self, outcomes: Sequence[Outcome]) -> None:
        """Return when the disk has them.

        Raises:
            StoreError: the disk refused; none of them was kept.
        """
        await self._commit.add(outcomes)
        for outcome in outcomes:
            self._metrics.feedback(outcome.by, outcome.kind).inc()

    def _plan_of(self, model: str) -> FeaturePlan:
        return self._models.get(model).plan

    async def _write(self, outcomes: Sequence[Outcome]) -> None:
        now = self._clock.now_us()
        await asyncio.to_thread(self._writer.append, outcomes, received_at=now, source=_SOURCE)
