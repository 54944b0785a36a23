"""A predictor over a real store, with what a test may put between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.clock import ManualClock
from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.online.port import OnlineReader, ReadCallback, RowsAndMarkers
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.records.predictions.record import PredictionBatch
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.routing import Options, ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.worlds.trained import Row, Sandbox


@dataclass
class ScriptedStore:
    """The real store, which may be away, be slow until a test lets it go on, or hold other rows."""

    inner: OnlineReader
    asked: list[list[bytes]] = field(default_factory=list)
    away: bool = False
    defect: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)
    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open.set()

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        if self.defect:
            raise ZeroDivisionError
        task = asyncio.get_running_loop().create_task(self._answer(keys, names, done))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def busy_poll(self) -> None:
        """Wait for nobody."""

    async def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        self.asked.append(list(keys))
        await self.open.wait()
        if self.away:
            raise StoreError("the store", "is away", fix="wait")
        rows, markers = await self.inner.get_with_markers(keys, names)
        return [self.rows.get(key, row) for key, row in zip(keys, rows, strict=True)], markers

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return (await self.get_with_markers(keys, []))[0]

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        await self.inner.mark_in_use(keys, seconds)

    async def close(self) -> None:
        await self.inner.close()

    async def _answer(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        try:
            found: RowsAndMarkers | StoreError = await self.get_with_markers(keys, names)
        except StoreError as error:
            found = error
        done(found)


@dataclass
class MemoryLog:
    """A prediction log in memory; what is required is durable when the test says so."""

    offered: list[PredictionBatch] = field(default_factory=list)
    required: list[tuple[PredictionBatch, Future[None]]] = field(default_factory=list)
    full: bool = False

    def offer(self, record: PredictionBatch) -> bool:
        self.offered.append(record)
        return True

    def require(self, record: PredictionBatch) -> Future[None]:
        if self.full:
            raise StoreError("prediction log", "is full", fix="wait")
        self.required.append((record, Future()))
        return self.required[-1][1]


@dataclass
class Desk:
    """A predictor and all around it; its clock stands still."""

    place: Sandbox
    predictor: Predictor
    store: ScriptedStore
    clock: ManualClock
    metrics: Metrics
    log: MemoryLog

    @property
    def loop_s(self) -> float:
        return asyncio.get_running_loop().time()

    def request(self, rows: Sequence[Row], model: ServedModel | None = None, **options: Any) -> ScoringRequest:  # noqa: ANN401
        model = model or self.place.model
        columns = model.parser.parse_rows(rows)
        return ScoringRequest(model=model, n=len(rows), rows=rows, columns=columns, options=Options(**options))

    def vectors(self, matrix: Matrix, model: ServedModel | None = None, **options: Any) -> ScoringRequest:  # noqa: ANN401
        return ScoringRequest(
            model=model or self.place.model,
            n=len(matrix),
            rows=matrix.tolist(),
            vectors=matrix,
            options=Options(**options),
        )

    async def answers(self, requests: Sequence[ScoringRequest]) -> list[ScoredSlice | SkewlessError]:
        """Ask all at once."""
        found = await asyncio.gather(*map(self.predictor.score, requests), return_exceptions=True)
        assert all(isinstance(item, ScoredSlice | SkewlessError) for item in found), found
        return found  # type: ignore[return-value]

    async def answer(self, request: ScoringRequest) -> ScoredSlice | SkewlessError:
        return (await self.answers([request]))[0]

    def refused(self, reason: str) -> int:
        return self.metrics.refused(reason).value

    def outcomes(self, outcome: str, model: ServedModel | None = None) -> int:
        model = model or self.place.model
        return self.metrics.requests(model.name, model.version, outcome).value


@asynccontextmanager
async def at_a_desk(place: Sandbox, limits: PredictorLimits | None = None) -> AsyncIterator[Desk]:
    """Open a desk; at the end nothing may be under way."""
    store = ScriptedStore(RedisReader(place.project.redis_url))
    clock, metrics, log = ManualClock(place.now_us()), Metrics(), MemoryLog()
    predictor = Predictor(online=store, clock=clock, log=log, limits=limits, metrics=metrics)  # type: ignore[arg-type]
    try:
        yield Desk(place, predictor, store, clock, metrics, log)
        await predictor.close()
    finally:
        await store.close()
    lines = dict(line.rsplit(" ", 1) for line in metrics.render().decode().splitlines())
    assert float(lines["skewless_requests_in_flight"]) == 0


def strict(model: ServedModel, **changes: Any) -> ServedModel:  # noqa: ANN401 - of a spec
    """Return a model that refuses what is missing, on the same runtime; or one changed otherwise."""
    spec = replace(model.package.spec, **(changes or {"missing": "refuse"}))
    return replace(model, package=replace(model.package, spec=spec))


def contents(answer: ScoredSlice | SkewlessError) -> tuple[Any, ...]:
    """Return all that an answer says but for its ids, bit by bit."""
    if not isinstance(answer, ScoredSlice):
        return type(answer), answer.sentence()
    arrays: list[npt.NDArray[Any]] = [answer.scores, answer.matrix, answer.status, answer.ages_s, answer.stale]
    arrays += [values for name in answer.scored.extras if (values := answer.extra_values(name)) is not None]
    bits = tuple((array.shape, str(array.dtype), np.ascontiguousarray(array).tobytes()) for array in arrays)
    return answer.model.name, answer.model.version, answer.t, answer.degraded, answer.decisions, bits


def good(answer: ScoredSlice | SkewlessError) -> ScoredSlice:
    assert isinstance(answer, ScoredSlice), answer
    return answer
