"""Entry point of scoring: submits requests to batches that form while the previous batch is being scored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from skewless.contract.clock import Clock
from skewless.contract.errors import SkewlessError
from skewless.contract.request import check_count
from skewless.contract.settings import Settings
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import OnlineReader
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.writer import PredictionWriter
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission
from skewless.serving.prediction.batch_queue import BatchQueue
from skewless.serving.prediction.breaker import Breaker
from skewless.serving.prediction.evaluator import Evaluator
from skewless.serving.prediction.feature_cache import FeatureCache
from skewless.serving.prediction.feature_reads import FeatureReads
from skewless.serving.prediction.prediction_cache import PredictionCache
from skewless.serving.prediction.rejections import reject_out_of_bounds
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring import Scoring
from skewless.serving.prediction.scoring_request import Options, ScoringRequest
from skewless.serving.prediction.shadows import Shadows
from skewless.serving.prediction.split_request import (
    MergedSlices,
    ReplyCallback,
    SplitRequest,
    route_to_arm,
    split_request,
)
from skewless.serving.prediction.ticket import SliceCallback, Ticket

_CACHED_VALUES = 1_000_000
_MAX_REQUESTS_OF_ROWS = 4  # rows in flight, as a number of requests of the largest size


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
    ) -> None:
        self.limits = limits or PredictorLimits()
        self._metrics = metrics or Metrics()
        breaker = self._breaker()
        reads = FeatureReads(
            online=online,
            clock=clock,
            marker_history=marker_history or MarkerHistory(),
            breaker=breaker,
            cache=self._feature_cache(),
        )
        self._scoring = Scoring(self._prediction_cache())
        self._evaluator = Evaluator(
            reads=reads,
            scoring=self._scoring,
            shadows=Shadows(log=log, metrics=self._metrics, busy=self._busy),
            clock=clock,
            log=log,
            metrics=self._metrics,
        )
        self._entities: BatchQueue[Ticket] = BatchQueue(self._evaluator.score_entities, self.limits.max_batch)
        self._vectors: BatchQueue[Ticket] = BatchQueue(self._evaluator.score_vectors, self.limits.max_batch)
        self.admission = Admission(
            requests=self.limits.max_in_flight,
            rows=self.limits.max_batch * _MAX_REQUESTS_OF_ROWS,
            metrics=self._metrics,
        )
        self._metrics.in_flight.watch(lambda: self.admission.in_flight)
        self._metrics.queue_depth.watch(lambda: len(self._entities) + len(self._vectors))

    @property
    def skew_us(self) -> int:
        """Measured difference between the clocks of the store and the server, microseconds; the log records it."""
        return self._evaluator.skew_us

    @skew_us.setter
    def skew_us(self, skew_us: int) -> None:
        self._evaluator.skew_us = skew_us

    def submit(self, request: ScoringRequest, on_reply: ReplyCallback) -> None:
        """Submit a request; the event loop calls ``on_reply`` once, with the scores or an error.

        If its routing sends rows to several versions, ``on_reply`` receives the scores of all versions together.

        Raises:
            BusyError: the server has no room; nothing was started.
            RequestError: a value is outside the bounds of a model that rejects such values.
        """
        if request.routing is None:
            self._submit(request, on_reply)
            return
        # One row cannot be split, and most requests have one.
        if request.n == 1 and request.columns is not None:
            self._submit(route_to_arm(request, request.routing.arm_of_row(request.columns)), on_reply)
            return
        parts = split_request(request, request.routing)
        if len(parts) == 1:
            self._submit(parts[0][0], on_reply)
            return
        # All parts are checked before any is admitted: a split request is rejected completely or not at all.
        for part, _ in parts:
            self._check_bounds(part)
        self.admission.admit(request.n)
        collector = SplitRequest([rows for _, rows in parts], partial(self._finish_reply, request.n, on_reply))
        tickets = [
            self._ticket(part, callback) for (part, _), callback in zip(parts, collector.part_callbacks(), strict=True)
        ]
        self._entities.put(*tickets)

    async def score(self, request: ScoringRequest) -> ScoredSlice:
        """Return the scores of a request from its own model; its routing is ignored.

        Raises:
            SkewlessError: the request has no scores; the error gives the reason.
        """
        future: asyncio.Future[ScoredSlice] = asyncio.get_running_loop().create_future()

        def on_reply(result: ScoredSlice | SkewlessError) -> None:
            if future.done():
                return  # the waiting task was cancelled
            if isinstance(result, SkewlessError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._submit(request, on_reply)
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

    async def close(self) -> None:
        """Finish all submitted requests, then stop."""
        # In the order of the work: batches need the scoring threads, and add jobs to the shadows of the evaluator.
        await self._entities.drain()
        await self._vectors.drain()
        await self._evaluator.close()
        self._scoring.close()

    def _submit(self, request: ScoringRequest, on_reply: SliceCallback) -> None:
        self._check_bounds(request)
        n = request.n
        self.admission.admit(n)
        ticket = self._ticket(request, partial(self._finish_slice, n, on_reply))
        (self._entities if request.vectors is None else self._vectors).put(ticket)

    def _check_bounds(self, request: ScoringRequest) -> None:
        if request.model.bounds is not None:
            reject_out_of_bounds(request, self._metrics)

    def _ticket(self, request: ScoringRequest, on_reply: SliceCallback) -> Ticket:
        ticket = Ticket(request, on_reply)
        deadline = request.options.deadline
        if deadline is not None:
            ticket.set_timer(asyncio.get_running_loop().call_at(deadline, self._evaluator.expire_ticket, ticket))
        return ticket

    def _finish_slice(self, n: int, on_reply: SliceCallback, result: ScoredSlice | SkewlessError) -> None:
        # Before the reply, so that a reply that fails cannot keep its room.
        self.admission.release(n)
        on_reply(result)

    def _finish_reply(
        self, n: int, on_reply: ReplyCallback, result: ScoredSlice | MergedSlices | SkewlessError
    ) -> None:
        self.admission.release(n)
        on_reply(result)

    def _busy(self) -> bool:
        return self.admission.is_overloaded or len(self._entities) > 0

    def _breaker(self) -> Breaker:
        breaker = Breaker(
            failures=self.limits.breaker_failures,
            seconds=self.limits.breaker_seconds,
            on_trip=self._metrics.trips.inc,
        )
        self._metrics.breaker.watch(lambda: float(breaker.state))
        return breaker

    def _feature_cache(self) -> FeatureCache | None:
        age_us = int(self.limits.feature_cache_ms * 1_000)
        return FeatureCache(max_age_us=age_us, entries=_CACHED_VALUES, metrics=self._metrics) if age_us else None

    def _prediction_cache(self) -> PredictionCache | None:
        return PredictionCache(self.limits.prediction_cache, self._metrics) if self.limits.prediction_cache else None
