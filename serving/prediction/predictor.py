"""The transport-free core: questions in, answers out, in batches that form while the last one is under way."""

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
from skewless.serving.prediction.refusals import refuse_outside
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring import Scoring
from skewless.serving.prediction.scoring_request import Options, ScoringRequest
from skewless.serving.prediction.shadows import Shadows
from skewless.serving.prediction.split_request import MergedSlices, SplitRequest, Told, answered_by, parted
from skewless.serving.prediction.ticket import Done, Ticket

_CACHED_VALUES = 1_000_000
_ROWS_EACH = 4  # rows in flight, in requests of the largest size


@dataclass(frozen=True, kw_only=True)
class PredictorLimits:
    """How much a predictor takes on; see the settings of the same names."""

    max_batch: int = 10_000
    max_in_flight: int = 512
    breaker_failures: int = 5
    breaker_seconds: float = 1.0
    feature_cache_ms: float = 0.0
    prediction_cache: int = 0

    @classmethod
    def of(cls, settings: Settings) -> PredictorLimits:
        """Return what the settings say."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


class Predictor:
    """Predicts with any loaded model from one store. All methods belong to one event loop.

    Args:
        log: where predictions are kept; None: nowhere.
        guard: knows how far the views were; a view that has gone back is UNAVAILABLE.
    """

    def __init__(
        self,
        *,
        online: OnlineReader,
        clock: Clock,
        log: PredictionWriter | None,
        limits: PredictorLimits | None = None,
        guard: MarkerHistory | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.limits = limits or PredictorLimits()
        self._metrics = metrics or Metrics()
        breaker = self._breaker()
        reads = FeatureReads(
            online=online, clock=clock, guard=guard or MarkerHistory(), breaker=breaker, cache=self._feature_cache()
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
        self._entities: BatchQueue[Ticket] = BatchQueue(self._evaluator.look_up, self.limits.max_batch)
        self._vectors: BatchQueue[Ticket] = BatchQueue(self._evaluator.take_vectors, self.limits.max_batch)
        self.admission = Admission(
            requests=self.limits.max_in_flight, rows=self.limits.max_batch * _ROWS_EACH, metrics=self._metrics
        )
        self._metrics.in_flight.watch(lambda: self.admission.under_way)
        self._metrics.queue_depth.watch(lambda: len(self._entities) + len(self._vectors))

    @property
    def skew_us(self) -> int:
        """Measured distance between the clocks of store and server, which the log records."""
        return self._evaluator.skew_us

    @skew_us.setter
    def skew_us(self, skew_us: int) -> None:
        self._evaluator.skew_us = skew_us

    def ask(self, question: ScoringRequest, done: Told) -> None:
        """Take a question; ``done`` is told its answer, or why there is none, from the event loop.

        Where its routing has several versions answer, it is told the answer of each, together.

        Raises:
            BusyError: as much is under way as may be; nothing was begun.
            RequestError: a value that was sent lies outside the model's bounds, which it refuses.
        """
        if question.routing is None:
            self._ask(question, done)
            return
        if question.n == 1 and question.columns is not None:
            self._ask(answered_by(question, question.routing.arm_of_one(question.columns)), done)
            return
        parts = parted(question, question.routing)
        if len(parts) == 1:
            self._ask(parts[0][0], done)
            return
        for part, _ in parts:
            self._check(part)
        self.admission.enter(question.n)
        takers = SplitRequest([rows for _, rows in parts], partial(self._told, question.n, done)).takers()
        self._entities.put(*(self._ticket(part, take) for (part, _), take in zip(parts, takers, strict=True)))

    async def answer(self, question: ScoringRequest) -> ScoredSlice:
        """Return the answer to a question of the model that it names, whatever its routing.

        Raises:
            SkewlessError: there is none; it says why.
        """
        waiting: asyncio.Future[ScoredSlice] = asyncio.get_running_loop().create_future()

        def done(answer: ScoredSlice | SkewlessError) -> None:
            if waiting.done():
                return  # nobody waits any more
            if isinstance(answer, SkewlessError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

        self._ask(question, done)
        return await waiting

    async def predict(self, model: ServedModel, rows: Sequence[object], options: Options | None = None) -> ScoredSlice:
        """Return predictions for JSON rows of entity keys and request fields.

        Raises:
            RequestError: a row is not as the plan says.
            StoreError: the store is away and the model refuses nulls, or a required log is full.
        """
        check_count(len(rows), self.limits.max_batch)
        columns = model.parser.parse_rows(rows)
        return await self.answer(
            ScoringRequest(model=model, n=len(rows), rows=rows, columns=columns, options=options or Options())
        )

    async def close(self) -> None:
        """Answer what was taken, then stop."""
        await self._entities.drained()
        await self._vectors.drained()
        await self._evaluator.close()
        self._scoring.close()

    def _ask(self, question: ScoringRequest, done: Done) -> None:
        self._check(question)
        n = question.n
        self.admission.enter(n)
        ticket = self._ticket(question, partial(self._settled, n, done))
        (self._entities if question.vectors is None else self._vectors).put(ticket)

    def _check(self, question: ScoringRequest) -> None:
        if question.model.bounds is not None:
            refuse_outside(question, self._metrics)

    def _ticket(self, question: ScoringRequest, done: Done) -> Ticket:
        ticket = Ticket(question, done)
        deadline = question.options.deadline
        if deadline is not None:
            ticket.alarm(asyncio.get_running_loop().call_at(deadline, self._evaluator.late, ticket))
        return ticket

    def _settled(self, n: int, done: Done, answer: ScoredSlice | SkewlessError) -> None:
        self.admission.leave(n)
        done(answer)

    def _told(self, n: int, done: Told, answer: ScoredSlice | MergedSlices | SkewlessError) -> None:
        self.admission.leave(n)
        done(answer)

    def _busy(self) -> bool:
        return self.admission.late or len(self._entities) > 0

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
