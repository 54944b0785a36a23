"""Score batches of requests: read features, assemble vectors, score, reply; then count and log.

The event loop runs everything here. Work after a reply is deferred, so that the next batch starts without waiting.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from skewless.contract.clock import Clock
from skewless.contract.errors import DeadlineError, SkewlessError, StoreError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.infra.records.predictions.ids import PredictionIds
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import ModelCounts
from skewless.serving.prediction.feature_reads import FeatureReads, StoredRows
from skewless.serving.prediction.group import Group, GroupPart, ReadTimes, group_tickets, make_batch, make_group_record
from skewless.serving.prediction.rejections import (
    age_limit_error,
    fail_group,
    fail_ticket,
    incomplete_view_error,
    reject_corrupt_rows,
    stored_bounds_error,
)
from skewless.serving.prediction.scored_batch import ScoredBatch, ScoredSlice
from skewless.serving.prediction.scoring import Scores, Scoring
from skewless.serving.prediction.shadows import Shadows
from skewless.serving.prediction.ticket import Ticket

_MILLISECOND = 1_000
_log = EventLogger()


class DeferredWork:
    """Run callbacks two turns of the event loop later, in order.

    In the turn after a reply, the clients that received it send their next requests, which form the next batch and
    start its store read. In the turn after that, the loop only waits for the store: work done then delays no reply.
    """

    def __init__(self) -> None:
        self._pending: deque[Callable[[], object]] = deque()

    def put(self, work: Callable[[], object]) -> None:
        """Add a callback; call this from the event loop."""
        if not self._pending:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.run)
        self._pending.append(work)

    def run(self) -> None:
        """Run all pending callbacks now."""
        while self._pending:
            try:
                self._pending.popleft()()
            except Exception as error:  # noqa: BLE001 - the reply is sent: without a log nobody would notice the defect
                _log.error("after_reply_failed", exc_info=error)


@dataclass(kw_only=True, eq=False)
class Evaluator:
    """Score batches of tickets; no batch raises.

    Args:
        shadows: scores served rows again with the shadow versions of a traffic policy.
        log: receives each prediction; None: predictions are not logged.
        skew_us: measured difference between the clocks of the store and the server, microseconds; the log records it.
        traced: whether some requests may have a trace.
    """

    reads: FeatureReads
    scoring: Scoring
    shadows: Shadows
    clock: Clock
    log: PredictionWriter | None
    metrics: Metrics
    skew_us: int = 0
    traced: bool = False

    def __post_init__(self) -> None:
        """Prepare the counters and the queue of deferred work."""
        self._counts: WeakKeyDictionary[ServedModel, ModelCounts] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deferred = DeferredWork()
        self._ids = PredictionIds()
        self._queue, self._redis, self._assemble, self._predict = (
            self.metrics.stage(name) for name in ("queue", "redis", "assemble", "predict")
        )

    async def score_entities(self, tickets: Sequence[Ticket]) -> None:
        """Score requests that contain entity keys; one store read serves the complete batch."""
        now_us = self._observe_start(tickets)
        groups = group_tickets(tickets, _floor(now_us), traced=self.traced)
        groups = [group for group in groups if self._try_group(group, lambda g: g.keys)]
        start_s = time.perf_counter()
        try:
            # Shadows are read in the same round trip: they must score the rows that the serving version saw.
            stored = await self._read([*groups, *self.shadows.shadow_groups(groups)], now_us)
        except StoreError as error:
            for group in groups:
                self._try_group(group, lambda g, error=error: self._score_without_store(g, now_us, error))  # type: ignore[misc]
            return
        except Exception as error:  # noqa: BLE001 - as in _try_group
            for group in groups:
                fail_group(group, error)
            return
        self._redis.observe(time.perf_counter() - start_s)
        for group in groups:
            self._try_group(group, lambda g: self._score_stored(g, stored, now_us))

    async def score_vectors(self, tickets: Sequence[Ticket]) -> None:
        """Score requests that contain feature vectors."""
        now_us = self._observe_start(tickets)
        for group in group_tickets(tickets, _floor(now_us), traced=self.traced):
            group.times = ReadTimes(now_us, now_us, now_us, self.skew_us)
            self._try_group(group, lambda g: self._score(g, None, g.vectors))

    def expire_ticket(self, ticket: Ticket) -> None:
        """Reply to a ticket whose deadline has passed.

        Scores with null features if the model allows it and scoring has not begun; otherwise the reply is an error.
        """
        if not ticket.is_open:
            return
        self.metrics.refused("deadline").inc()
        request = ticket.request
        error = DeadlineError(
            f"model {request.model.name!r}",
            "has no result before the deadline",
            fix="raise the timeout, or set missing='null' on the model to score without features",
        )
        now_us = self.clock.now_us()
        if not ticket.is_waiting or request.vectors is not None or request.options.extras:
            fail_ticket(ticket, error)
            return
        for group in group_tickets([ticket], _floor(now_us), traced=self.traced):
            self._try_group(group, lambda g: self._score_without_store(g, now_us, error))

    async def close(self) -> None:
        """Return when all background tasks are done."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._deferred.run()
        await self.shadows.close()

    def _observe_start(self, tickets: Sequence[Ticket]) -> int:
        now_s = time.perf_counter()
        for ticket in tickets:
            self._queue.observe(now_s - ticket.started_at)
            if self.traced and ticket.request.trace is not None:
                ticket.request.trace.add("queue", ticket.started_at, now_s)
        self.metrics.batch_requests.observe(len(tickets))
        self.metrics.batch_rows.observe(sum(ticket.n for ticket in tickets))
        return self.clock.now_us()

    async def _read(self, groups: Sequence[Group], now_us: int) -> StoredRows:
        # Concurrent callers often ask for the same entity: each key is read once.
        if len(groups) == 1:
            keys, markers = dict.fromkeys(groups[0].keys), groups[0].model.reader.markers
        else:
            keys = dict.fromkeys(itertools.chain.from_iterable(group.keys for group in groups))
            names = itertools.chain.from_iterable(group.model.reader.markers for group in groups)
            markers = list(dict.fromkeys(names))
        keys.pop(None, None)
        start_s = time.perf_counter()
        try:
            return await self.reads.read(cast("list[bytes]", list(keys)), markers, now_us)
        finally:
            for group in groups:
                if group.traces:
                    group.add_stage("redis", start_s)

    def _score_stored(self, whole: Group, stored: StoredRows, now_us: int) -> None:
        group = whole.pending  # deadlines may have passed during the read
        if group is None:
            return
        group.stored = stored
        marker_status = group.model.reader.check_ages(stored.marker_status, group.t)
        if marker_status.lost and group.model.package.spec.missing == "refuse":
            raise incomplete_view_error(group.model, stored.marker_status, group.t)
        group.times = ReadTimes(now_us, stored.read_start, stored.read_end, self.skew_us)
        group.degraded = bool(marker_status.lost)
        self._evaluate(group)

    def _score_without_store(self, whole: Group, now_us: int, error: SkewlessError) -> None:
        group = whole.pending
        if whole.model.package.spec.missing == "refuse":
            raise error
        if group is not None:
            group.times = ReadTimes(now_us, now_us, self.clock.now_us(), self.skew_us)
            group.degraded = True
            self._evaluate(group)

    def _evaluate(self, group: Group) -> None:
        """Assemble and score a group; if that fails, score its versions, then its requests, each alone.

        So a bad version or request fails no other, and a version that takes long delays no other.
        """
        if len(group.parts) > 1 and not all(self.scoring.is_quick(part.model, part.n) for part in group.parts):
            self._evaluate_apart(group)
            return
        start_s = time.perf_counter()
        try:
            vectors = group.build_vectors()
            reject_corrupt_rows(group, vectors.corrupt)
        except Exception:
            if len(group.tickets) == 1:
                raise
            self._evaluate_apart(group)
            return
        self._assemble.observe(time.perf_counter() - start_s)
        group.add_stage("assemble", start_s)
        group.degraded = group.degraded or vectors.corrupt > 0
        self._score(group, vectors, vectors.matrix)

    def _evaluate_apart(self, group: Group) -> None:
        for smaller in group.smaller_groups:
            self._try_group(smaller, self._evaluate)

    def _score(self, group: Group, vectors: ServiceVectors | None, matrix: Scores) -> None:
        # A short call runs on the event loop: the hand-over to a thread takes longer than the scores of a few rows.
        if len(group.parts) == 1 and (group.extras or not self.scoring.is_quick(group.model, group.n)):
            group.claim()
            self._start_task(self._score_in_thread(group, vectors, matrix))
            return
        start_s = time.perf_counter()
        try:
            scores = [self.scoring.score(part.model, matrix[part.start : part.stop]) for part in group.parts]
            whole = scores[0] if len(scores) == 1 else np.concatenate(scores)
        except Exception:
            if len(group.parts) == 1:
                raise
            self._evaluate_apart(group)
            return
        self._predict.observe(time.perf_counter() - start_s)
        group.add_stage("predict", start_s)
        self._finish(group, make_batch(group, self._ids.take(group.t, group.n), vectors, matrix, whole))

    async def _score_in_thread(self, group: Group, vectors: ServiceVectors | None, matrix: Scores) -> None:
        start_s = time.perf_counter()
        try:
            scores, extras = await self.scoring.score_in_thread(group.model, matrix, group.extras)
        except Exception as error:  # noqa: BLE001 - as in _try_group
            fail_group(group, error)
            return
        self._predict.observe(time.perf_counter() - start_s)
        group.add_stage("predict", start_s)
        scored = make_batch(group, self._ids.take(group.t, group.n), vectors, matrix, scores, extras)
        self._try_group(group, lambda g: self._finish(g, scored))

    def _finish(self, group: Group, scored: ScoredBatch) -> None:
        """Reply, then log; if the model requires the log, reply only after the row is durable."""
        log = self.log
        if log is not None and scored.model.package.spec.log == "required":
            # From here on only the log decides: a deadline that passes meanwhile must not reply a second time.
            record = make_group_record(scored, group)
            group.claim()
            self._start_task(self._reply_after_write(asyncio.wrap_future(log.require(record)), group, scored))
            return
        self._reply(group, scored)
        if log is not None:
            self._defer(group, lambda: log.offer(make_group_record(scored, group)))

    async def _reply_after_write(self, log_write: asyncio.Future[None], group: Group, scored: ScoredBatch) -> None:
        start_s = time.perf_counter()
        try:
            await log_write
        except StoreError as error:
            fail_group(group, error)
            return
        finally:
            group.add_stage("log", start_s)
        self._try_group(group, lambda g: self._reply(g, scored))

    def _reply(self, group: Group, scored: ScoredBatch) -> None:
        served = [self._reply_part(part, scored, index) for index, part in enumerate(group.parts)]
        self._defer(group, partial(self._count, group.parts, scored, [len(tickets) for tickets in served]))
        now_s = time.perf_counter()
        for part, tickets in zip(group.parts, served, strict=True):
            if part.arm is not None:
                seconds = [now_s - ticket.started_at for ticket in tickets]
                part.arm.counts.count(scored, len(tickets), seconds, slice(part.start, part.stop))
        if group.shadows:
            self._defer(group, partial(self.shadows.put, group, scored))

    def _reply_part(self, part: GroupPart, scored: ScoredBatch, index: int) -> list[Ticket]:
        """Reply to the tickets of a part and return the tickets that received scores."""
        start, served = part.start, []
        for ticket in part.tickets:
            stop = start + ticket.n
            scored_slice = ScoredSlice(scored, start, stop, ticket.request.options.max_age_us, index)
            age_error = None if scored_slice.max_age_us is None else age_limit_error(scored_slice)
            bounds_error = None if scored.outside is None else stored_bounds_error(scored_slice)
            if bounds_error is not None:
                fail_ticket(ticket, bounds_error)
            elif ticket.settle(age_error or scored_slice) and age_error is None:
                served.append(ticket)
            start = stop
        return served

    def _count(self, parts: Sequence[GroupPart], scored: ScoredBatch, served: Sequence[int]) -> None:
        for part, requests in zip(parts, served, strict=True):
            counts = self._counts.get(part.model)
            if counts is None:
                counts = self._counts[part.model] = ModelCounts(self.metrics, part.model)
            counts.count_requests(scored, requests, part.start, part.stop)
        self._counts[scored.model].count_views(scored)

    def _defer(self, group: Group, work: Callable[[], object]) -> None:
        """Run work that no caller waits for: deferred in a batch, at once for a single request.

        The client of a single request is busy with the reply, so nothing can arrive that would have to wait.
        """
        if len(group.tickets) > 1:
            self._deferred.put(work)
        else:
            work()

    def _try_group(self, group: Group, work: Callable[[Group], Any]) -> bool:
        """Run work for a group and return whether it succeeded; an error goes to each ticket of the group."""
        try:
            work(group)
        except Exception as error:  # noqa: BLE001 - a defect in one group must reach its callers and spare other groups
            fail_group(group, error)
            return False
        return True

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _floor(now_us: int) -> int:
    return now_us // _MILLISECOND * _MILLISECOND
