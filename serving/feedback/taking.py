"""Takes outcomes into the outcome log: what comes while one file is written goes into the next one together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from skewless.contract.clock import Clock
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plan import FeaturePlan
from skewless.infra.outcomes.writer import OutcomeWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable

_SOURCE = "http"


@dataclass(kw_only=True)
class _OutcomeBatch:
    """Outcomes of several requests that are written together."""

    outcomes: list[Outcome] = field(default_factory=list)
    written: asyncio.Task[None] | None = None


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
        self._turn = asyncio.Lock()
        self._gathering: _OutcomeBatch | None = None

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
        batch = self._gathering
        if batch is None or batch.written is None:
            batch = self._gathering = _OutcomeBatch()
            batch.written = asyncio.create_task(self._write(batch))
        batch.outcomes.extend(outcomes)
        # A client that goes away must not stop what others wait for.
        await asyncio.shield(batch.written)
        for outcome in outcomes:
            self._metrics.feedback(outcome.by, outcome.kind).inc()

    def _plan_of(self, model: str) -> FeaturePlan:
        return self._models.get(model).plan

    async def _write(self, batch: _OutcomeBatch) -> None:
        async with self._turn:
            self._gathering = None
            now = self._clock.now_us()
            await asyncio.to_thread(self._writer.append, batch.outcomes, received_at=now, source=_SOURCE)
