"""Entry point of scoring: submits requests to batches that form while the previous batch is being scored."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from skewless.contract.clock import Clock
from skewless.contract.errors import SkewlessError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.request import check_count
from skewless.contract.settings import Settings
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.runtimes.certification import certify
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import OnlineReader, settle
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission
from skewless.serving.prediction.evaluator import Evaluator
from skewless.serving.prediction.feature_reads import Breaker, FeatureCache, FeatureReads
from skewless.serving.prediction.rejections import reject_out_of_bounds
from skewless.serving.prediction.routing import MergedSlices, Options, ReplyCallback, ScoringRequest, collect_slices
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring import PredictionCache, Scoring
from skewless.serving.prediction.shadows import Shadows
from skewless.serving.prediction.ticket import Ticket

_CACHED_VALUES = 1_000_000
_MAX_REQUESTS_OF_ROWS = 4  # rows in flight, as a number of requests of the largest size
_MAX_WAIT_S = 0.02  # longest wait behind a batch that hangs


class BatchQueue:
    """Process tickets in order, one batch after the other.

    Tickets of one turn of the event loop form one batch, even if no batch is running. A ticket waits at most 20 ms
    behind a batch that hangs: then the next batch starts concurrently.

    Args:
        work: processes a batch; must not raise.
        max_rows: number of rows from which a batch takes no further ticket.
    """

    def __init__(self, work: Callable[[list[Ticket]], Awaitable[None]], max_rows: int) -> None:
        self._work = work
        self._max_rows = max_rows
        self._pending: deque[tuple[Ticket, ...]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, *tickets: Ticket) -> None:
        """Add tickets that must be in one batch; call this from the event loop."""
        self._pending.append(tickets)
        if not self._running:
            self._start()
        elif self._timer is None:
            self._schedule_check(self._started_at + _MAX_WAIT_S)

    async def drain(self) -> None:
        """Return when all tickets are processed."""
        while self._running:
            await asyncio.wait(self._running)

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)

    async def _run(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            # No await lies between the last check of `_pending` and the removal below: a later one starts a new task.
            while self._pending:
                self._started_at = loop.time()
                await self._work(self._pop_batch())
                if len(self._running) > 1:
                    return  # a batch that started later takes the next tickets
                # Clients that received a reply send their next request at once. One turn of the loop brings these into
                # the next batch, and a batch of sixteen costs hardly more than one of eight.
                await asyncio.sleep(0)
        finally:
            self._running.remove(cast("asyncio.Task[None]", task))

    def _schedule_check(self, at_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(at_s, self._check_running)

    def _check_running(self) -> None:
        """Start another batch if the last one has been running for too long."""
        self._timer = None
        if not self._pending:
            return
        now = asyncio.get_running_loop().time()
        if self._started_at + _MAX_WAIT_S <= now:
            self._start()
            self._started_at = now
        self._schedule_check(self._started_at + _MAX_WAIT_S)

    def _pop_batch(self) -> list[Ticket]:
        batch: list[Ticket] = []
        rows = 0
        # A ticket that is larger than the limit still gets a batch: the limit is checked before it is taken.
        while self._pending and rows < self._max_rows:
            for ticket in self._pending.popleft():
                batch.append(ticket)
                rows += ticket.n
        return batch


@dataclass(frozen=True, kw_only=True)
class PredictorLimits:
    """Limits of a predictor; see the settings of the same names."""

    max_batch: int = 10_000
    max_in_flight: int = 512
    breaker_failures: int = 5
    breaker_seconds: float = 1.0
    feature_cache_ms: float = 0.0
    prediction_cache: int = 0

    @classmethod
    def of(cls, settings: Settings) -> PredictorLimits:
        """Return the limits from the settings."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


class Predictor:
    """Predict with any loaded model from one online store. All methods belong to one event loop.

    Args:
        log: receives each prediction; None: predictions are not logged.
        marker_history: the history of the markers; a view whose marker went back is UNAVAILABLE.
        skew_us: measured difference between the clocks of the store and the server, microseconds; the log records it.
        traced: whether some requests may have a trace.
        scoring_threads: number of threads that score large batches.
    """

    def __init__(
        self,
        *,
        online: OnlineReader,
        clock: Clock,
        log: PredictionWriter | None,
        limits: PredictorLimits | None = None,
        marker_history: MarkerHistory | None = None,
        metrics: Metrics | None = None,
        skew_us: int = 0,
        traced: bool = False,
        scoring_threads: int = 1,
    ) -> None:
        self.limits = limits or PredictorLimits()
        self.skew_us = skew_us
        self._metrics = metrics = metrics or Metrics()
        limits = self.limits
        breaker = Breaker(failures=limits.breaker_failures, seconds=limits.breaker_seconds, on_trip=metrics.trips.inc)
        age_us = int(limits.feature_cache_ms * 1_000)
        self._clock = clock
        self._reads = reads = FeatureReads(
            online=online,
            clock=clock,
            marker_history=marker_history or MarkerHistory(),
            breaker=breaker,
            cache=FeatureCache(max_age_us=age_us, entries=_CACHED_VALUES, metrics=metrics) if age_us else None,
        )
        predictions = PredictionCache(limits.prediction_cache, metrics) if limits.prediction_cache else None
        self._scoring = Scoring(predictions, scoring_threads)
        self._evaluator = Evaluator(
            reads=reads,
            scoring=self._scoring,
            shadows=Shadows(log=log, metrics=metrics, busy=self._busy),
            clock=clock,
            log=log,
            metrics=metrics,
            skew_us=skew_us,
            traced=traced,
        )
        self._entities = BatchQueue(self._evaluator.score_entities, limits.max_batch)
        self._vectors = BatchQueue(self._evaluator.score_vectors, limits.max_batch)
        self.admission = Admission(
            requests=limits.max_in_flight, rows=limits.max_batch * _MAX_REQUESTS_OF_ROWS, metrics=metrics
        )
        metrics.breaker.watch(lambda: float(breaker.state))
        metrics.in_flight.watch(lambda: self.admission.in_flight)
        metrics.queue_depth.watch(lambda: len(self._entities) + len(self._vectors))

    def submit(self, request: ScoringRequest, on_reply: ReplyCallback) -> None:
        """Submit a request; the event loop calls ``on_reply`` once, with the scores or an error.

        If its routing sends rows to several versions, ``on_reply`` receives the scores of all versions together.

        Raises:
            BusyError: the server has no room; nothing was started.
            RequestError: a value is outside the bounds of a model that rejects such values.
        """
        routing = request.routing
        if routing is None or request.n == 1 or routing.has_one_version:
            self._submit(request if routing is None else routing.route(request), on_reply)
            return
        parts = routing.split(request)
        if len(parts) == 1:
            self._submit(parts[0].request, on_reply)
            return
        # All parts are checked before any is admitted: a split request is rejected completely or not at all.
        for part in parts:
            if part.request.model.bounds is not None:
                reject_out_of_bounds(part.request, self._metrics)
        self.admission.admit(request.n)
        callbacks = collect_slices([part.rows for part in parts], partial(self._finish, request.n, on_reply))
        tickets = [Ticket(part.request, callback) for part, callback in zip(parts, callbacks, strict=True)]
        self._entities.put(*map(self._start_timer, tickets))

    async def score(self, request: ScoringRequest) -> ScoredSlice:
        """Return the scores of a request from its own model; its routing is ignored.

        Raises:
            SkewlessError: the request has no scores; the error gives the reason.
        """
        future: asyncio.Future[ScoredSlice] = asyncio.get_running_loop().create_future()
        self._submit(request, partial(settle, future))
        return await future

    async def predict(self, model: ServedModel, rows: Sequence[object], options: Options | None = None) -> ScoredSlice:
        """Return predictions for JSON rows of entity keys and request fields.

        Raises:
            RequestError: a row does not match the inputs in the plan.
            StoreError: the store is unavailable and the model rejects nulls, or its required log is full.
        """
        check_count(len(rows), self.limits.max_batch)
        columns = model.parser.parse_rows(rows)
        return await self.score(
            ScoringRequest(model=model, n=len(rows), rows=rows, columns=columns, options=options or Options())
        )

    async def check(self, model: ServedModel) -> ModelCheck:
        """Return the result of a synthetic prediction, which is neither logged nor counted.

        Raises:
            StoreError: the online store did not answer.
            PackageError: the runtime gives other margins than the library that trained the model.
        """
        return await check_model(model, self._reads, self._scoring.pool, self._clock.now_us())

    async def close(self) -> None:
        """Finish all submitted requests, then stop."""
        # In the order of the work: batches need the scoring threads, and add jobs to the shadows of the evaluator.
        await self._entities.drain()
        await self._vectors.drain()
        await self._evaluator.close()
        self._scoring.close()

    def _submit(self, request: ScoringRequest, on_reply: ReplyCallback) -> None:
        if request.model.bounds is not None:
            reject_out_of_bounds(request, self._metrics)
        self.admission.admit(request.n)
        ticket = Ticket(request, on_reply, self.admission.release)
        if request.options.deadline is not None:
            self._start_timer(ticket)
        (self._entities if request.vectors is None else self._vectors).put(ticket)

    def _start_timer(self, ticket: Ticket) -> Ticket:
        deadline = ticket.request.options.deadline
        if deadline is not None:
            ticket.set_timer(asyncio.get_running_loop().call_at(deadline, self._evaluator.expire_ticket, ticket))
        return ticket

    def _finish(self, n: int, on_reply: ReplyCallback, result: ScoredSlice | MergedSlices | SkewlessError) -> None:
        # Before the reply, so that a reply that fails cannot keep its room.
        self.admission.release(n)
        on_reply(result)

    def _busy(self) -> bool:
        return self.admission.is_overloaded or len(self._entities) > 0


@dataclass(frozen=True, kw_only=True)
class ModelCheck(PlainRecord):
    """The result of a synthetic prediction.

    Args:
        rows: reference rows that were scored, in one call and row by row.
        bit_equal: all margins have the bits of the library that trained the model.
        largest_difference: of a margin.
        incomplete_views: views whose rows in the online store are incomplete or too old; predictions read UNAVAILABLE.
        read_ms: time of the read of the online store, milliseconds.
        score_ms: time of all scores, milliseconds.
    """

    model: str
    version: str
    runtime: str
    rows: int
    bit_equal: bool
    largest_difference: float
    incomplete_views: list[str]
    read_ms: float
    score_ms: float


async def check_model(model: ServedModel, reads: FeatureReads, pool: Executor, now_us: int) -> ModelCheck:
    """Read the markers of a served model's views, and score reference rows of its package; return the result.

    The rows and their scores come from the package, not from a caller, so that nothing is logged, counted or cached,
    and nobody can predict without the log this way.

    Raises:
        StoreError: the online store did not answer.
        PackageError: the runtime gives other margins than the library that trained the model.
    """
    started = time.perf_counter()
    stored = await reads.read([], list(model.reader.markers), now_us)
    marker_status = model.reader.check_ages(stored.marker_status, now_us)
    read_at = time.perf_counter()
    reference = model.package.reference
    loop, tolerance = asyncio.get_running_loop(), model.package.spec.tolerance
    certificate = await loop.run_in_executor(pool, lambda: certify(model.runtime, reference, tolerance=tolerance))
    views: list[Any] = list(model.plan.all_views)
    return ModelCheck(
        model=model.name,
        version=model.version,
        runtime=certificate.runtime_id,
        rows=certificate.rows,
        bit_equal=certificate.bit_equal,
        largest_difference=certificate.largest_difference,
        incomplete_views=[
            view.name
            for view in views
            if not marker_status.lost.isdisjoint((view.hash, *model.reader.markers_of(view)))
        ],
        read_ms=(read_at - started) * 1e3,
        score_ms=(time.perf_counter() - read_at) * 1e3,
    )
