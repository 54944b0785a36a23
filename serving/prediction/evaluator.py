"""From batches of questions to answers: read, assemble, score, reply, and then count and log."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import structlog

from skewless.contract.clock import Clock
from skewless.contract.errors import DeadlineError, SkewlessError, StoreError
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.writer import PredictionWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.feature_reads import FeatureReads, StoredRows
from skewless.serving.prediction.model_counts import ModelCounts
from skewless.serving.prediction.record import ReadTimes, record_of
from skewless.serving.prediction.refusals import (
    fail,
    incomplete,
    outside_bounds,
    refuse,
    refuse_damaged,
    refused_value,
    too_old,
)
from skewless.serving.prediction.scored_batch import ScoredBatch, ScoredSlice
from skewless.serving.prediction.scoring import Scoring, Values
from skewless.serving.prediction.shadows import Shadows
from skewless.serving.prediction.ticket import Group, Ticket, grouped

_MILLISECOND = 1_000
_log = structlog.get_logger()


class DeferredWork:
    """Does things two turns of the event loop later, in order.

    In the turn after a reply the next batch gathers and is read; in the one after that the loop has nothing to do but
    wait for the store.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def put(self, work: Callable[[], None]) -> None:
        """Take something to do; call it from the event loop."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.run)
        self._waiting.append(work)

    def run(self) -> None:
        """Do all that waits, now."""
        while self._waiting:
            try:
                self._waiting.popleft()()
            except Exception as error:  # noqa: BLE001 - a defect, after the reply: nobody else would hear of it
                _log.error("after_reply_failed", exc_info=error)


class Evaluator:
    """Answers batches of tickets; no batch raises.

    Args:
        shadows: score besides what was answered under a traffic policy.
        log: where predictions are kept; None: nowhere.
    """

    def __init__(
        self,
        *,
        reads: FeatureReads,
        scoring: Scoring,
        shadows: Shadows,
        clock: Clock,
        log: PredictionWriter | None,
        metrics: Metrics,
    ) -> None:
        self.skew_us = 0
        self._reads = reads
        self._scoring = scoring
        self._shadows = shadows
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._counts: WeakKeyDictionary[ServedModel, ModelCounts] = WeakKeyDictionary()
        self._beside: set[asyncio.Task[None]] = set()
        self._afterwards = DeferredWork()
        self._prefix = os.urandom(6).hex()
        self._counter = itertools.count()
        self._queue, self._redis, self._assemble, self._predict = (
            metrics.stage(name) for name in ("queue", "redis", "assemble", "predict")
        )

    async def look_up(self, tickets: Sequence[Ticket]) -> None:
        """Answer questions about entities, from one read."""
        now_us = self._begin(tickets)
        groups = [group for group in grouped(tickets, _floor(now_us)) if self._guarded(group, lambda g: g.names)]
        began = time.perf_counter()
        try:
            stored = await self._read([*groups, *self._shadows.beside(groups)], now_us)
        except StoreError as error:
            for group in groups:
                self._guarded(group, lambda g, error=error: self._without_store(g, now_us, error))  # type: ignore[misc]
            return
        except Exception as error:  # noqa: BLE001 - as in _guarded
            for group in groups:
                fail(group, error)
            return
        self._redis.observe(time.perf_counter() - began)
        for group in groups:
            self._guarded(group, lambda g: self._with_store(g, stored, now_us))

    async def take_vectors(self, tickets: Sequence[Ticket]) -> None:
        """Answer questions that came with their vectors."""
        now_us = self._begin(tickets)
        times = ReadTimes(asked_at=now_us, read_start=now_us, read_end=now_us)
        for group in grouped(tickets, _floor(now_us)):
            self._guarded(group, lambda g: self._score(g, None, g.vectors, times))

    def late(self, ticket: Ticket) -> None:
        """Answer a ticket whose time is over: without features, if its model may and it is not too late for that."""
        if not ticket.open:
            return
        self._metrics.refused("deadline").inc()
        question = ticket.question
        error = DeadlineError(
            f"model {question.model.name!r}",
            "could not answer in the time that was given",
            fix="give more time, or let the model score without features: missing='null'",
        )
        now_us = self._clock.now_us()
        if not ticket.waits or question.vectors is not None or question.options.contributions:
            refuse(ticket, error)
            return
        for group in grouped([ticket], _floor(now_us)):
            self._guarded(group, lambda g: self._without_store(g, now_us, error))

    async def close(self) -> None:
        """Return when all that goes on beside the event loop is done."""
        while self._beside:
            await asyncio.wait(self._beside)
        self._afterwards.run()
        await self._shadows.close()

    def _begin(self, tickets: Sequence[Ticket]) -> int:
        now = time.perf_counter()
        for ticket in tickets:
            self._queue.observe(now - ticket.began)
        self._metrics.batch_requests.observe(len(tickets))
        self._metrics.batch_rows.observe(sum(ticket.n for ticket in tickets))
        return self._clock.now_us()

    async def _read(self, groups: Sequence[Group], now_us: int) -> StoredRows:
        keys = dict.fromkeys(itertools.chain.from_iterable(group.names for group in groups))
        keys.pop(None, None)
        markers = dict.fromkeys(itertools.chain.from_iterable(group.model.reader.markers for group in groups))
        return await self._reads.read([key for key in keys if key is not None], list(markers), now_us)

    def _with_store(self, group: Group, stored: StoredRows, now_us: int) -> None:
        group, reader = group.waiting, group.model.reader
        if not group.tickets:
            return
        group.stored = stored
        marker_status = reader.check_ages(stored.marker_status, group.t)
        if marker_status.lost and group.model.package.spec.missing == "refuse":
            raise incomplete(group.model, stored.marker_status, group.t)
        values = stored.values

        def vectors_of(group: Group) -> ServiceVectors:
            rows = [None if name is None else values[name] for name in group.names]
            return reader.vectors(group.names, rows, marker_status, group.t, group.ask)

        times = ReadTimes(asked_at=now_us, read_start=stored.read_start, read_end=stored.read_end)
        self._evaluate(group, vectors_of, times, degraded=bool(marker_status.lost))

    def _without_store(self, group: Group, now_us: int, error: SkewlessError) -> None:
        group = group.waiting
        if group.model.package.spec.missing == "refuse":
            raise error
        if group.tickets:
            times = ReadTimes(asked_at=now_us, read_start=now_us, read_end=self._clock.now_us())
            self._evaluate(group, lambda g: g.model.reader.unavailable(g.t, g.ask), times, degraded=True)

    def _evaluate(
        self, group: Group, vectors_of: Callable[[Group], ServiceVectors], times: ReadTimes, *, degraded: bool
    ) -> None:
        """Assemble and score; where that fails, for each caller alone: what is wrong with one must not fail others."""
        began = time.perf_counter()
        try:
            vectors = vectors_of(group)
            refuse_damaged(group, vectors.corrupt)
        except Exception:
            if len(group.tickets) == 1:
                raise
            for alone in group.apart:
                self._guarded(alone, lambda g: self._evaluate(g, vectors_of, times, degraded=degraded))
            return
        self._assemble.observe(time.perf_counter() - began)
        self._score(group, vectors, vectors.matrix, times, degraded=degraded or vectors.corrupt > 0)

    def _score(
        self, group: Group, vectors: ServiceVectors | None, matrix: Values, times: ReadTimes, *, degraded: bool = False
    ) -> None:
        if group.contributions or not self._scoring.is_quick(group.model, group.n):
            group.take()
            self._start(self._score_beside(group, vectors, matrix, times, degraded=degraded))
            return
        began = time.perf_counter()
        scores = self._scoring.score(group.model, matrix)
        self._predict.observe(time.perf_counter() - began)
        self._finish(group, self._scored(group, vectors, matrix, scores, degraded=degraded), times)

    async def _score_beside(
        self, group: Group, vectors: ServiceVectors | None, matrix: Values, times: ReadTimes, *, degraded: bool
    ) -> None:
        began = time.perf_counter()
        try:
            scores, contributions = await self._scoring.score_beside(
                group.model, matrix, contributions=group.contributions
            )
        except Exception as error:  # noqa: BLE001 - as in _guarded
            fail(group, error)
            return
        self._predict.observe(time.perf_counter() - began)
        scored = self._scored(group, vectors, matrix, scores, degraded=degraded, contributions=contributions)
        self._guarded(group, lambda g: self._finish(g, scored, times))

    def _scored(
        self,
        group: Group,
        vectors: ServiceVectors | None,
        matrix: Values,
        scores: Values,
        *,
        degraded: bool,
        contributions: Values | None = None,
    ) -> ScoredBatch:
        return ScoredBatch(
            model=group.model,
            ids=[f"{self._prefix}-{next(self._counter):x}" for _ in range(group.n)],
            t=group.t,
            scores=scores,
            matrix=matrix,
            looked_up=vectors,
            degraded=degraded,
            contributions=contributions,
            outside=outside_bounds(group, matrix),
            narrow=group.narrow,
        )

    def _finish(self, group: Group, scored: ScoredBatch, times: ReadTimes) -> None:
        """Reply, then log; or where the log is required, the other way round."""
        if self._log is None:
            self._reply(group, scored, times)
            return
        if scored.model.package.spec.log == "required":
            record = record_of(scored, group.origin, group.rows, times, self.skew_us)
            group.take()
            written = asyncio.wrap_future(self._log.require(record))
            self._start(self._reply_when(written, group, scored, times))
            return
        self._reply(group, scored, times)
        self._later(group, partial(self._offer, self._log, group, scored, times))

    def _offer(self, log: PredictionWriter, group: Group, scored: ScoredBatch, times: ReadTimes) -> None:
        log.offer(record_of(scored, group.origin, group.rows, times, self.skew_us))

    async def _reply_when(
        self, written: asyncio.Future[None], group: Group, scored: ScoredBatch, times: ReadTimes
    ) -> None:
        try:
            await written
        except StoreError as error:
            fail(group, error)
            return
        self._guarded(group, lambda g: self._reply(g, scored, times))

    def _reply(self, group: Group, scored: ScoredBatch, times: ReadTimes) -> None:
        start, answered = 0, []
        for ticket in group.tickets:
            stop = start + ticket.n
            answer = ScoredSlice(scored, start, stop, ticket.question.options.max_age_us)
            old = None if answer.max_age_us is None else too_old(answer)
            refusal = None if scored.outside is None else refused_value(answer)
            if refusal is not None:
                refuse(ticket, refusal)
            elif ticket.settle(old or answer) and old is None:
                answered.append(ticket)
            start = stop
        self._later(group, partial(self._count, scored, len(answered)))
        if group.arm is not None:
            now = time.perf_counter()
            group.arm.counts.count(scored, len(answered), [now - ticket.began for ticket in answered])
            if group.arm.shadows:
                self._later(group, partial(self._shadows.put, group, scored, times, self.skew_us))

    def _count(self, scored: ScoredBatch, answered: int) -> None:
        counts = self._counts.get(scored.model)
        if counts is None:
            counts = self._counts[scored.model] = ModelCounts(self._metrics, scored.model)
        counts.count(scored, answered)

    def _later(self, group: Group, work: Callable[[], None]) -> None:
        """Do what no caller waits for: after a lone request at once, its caller is busy with the reply."""
        if len(group.tickets) > 1:
            self._afterwards.put(work)
        else:
            work()

    def _guarded(self, group: Group, work: Callable[[Group], Any]) -> bool:
        """Do something for a group; what goes wrong is told to its tickets. Return whether nothing did."""
        try:
            work(group)
        except Exception as error:  # noqa: BLE001 - a defect: those who wait must hear of it, and other groups must not
            fail(group, error)
            return False
        return True

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


def _floor(now_us: int) -> int:
    return now_us // _MILLISECOND * _MILLISECOND
