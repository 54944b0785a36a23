"""Batch prediction: scores files and many rows with the same predictor as the server."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import check_count, request_value
from skewless.contract.settings import Settings
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.runtimes.candidates import ScoringTarget
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.store import open_online_reader
from skewless.infra.records.predictions.batches import booleans, numbers, optional_texts, texts
from skewless.infra.records.predictions.record import largest_output
from skewless.infra.records.predictions.segments import prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.serving.batch_files import CHUNK_ROWS, CSV, RESULT, InputRows, open_targets, writes_folder
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.input_texts import ColumnRows
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.routing import NO_OPTIONS, Options, ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.server_config import ServerConfig

_T = TypeVar("_T")
_LEAVES = "leaves"
_AHEAD = 2  # chunks in flight in addition to the first; a predictor accepts four
_LOG_PAUSE_S = 2e-3


def predict_rows(config: ServerConfig, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return predictions for rows of entity keys and request features, as the server would return them now.

    Returns:
        ``id``, ``score``, ``t_us``, ``version`` and every feature of the model.
    """
    return run_coroutine(_predict_rows(config, model, rows))


def predict_files(
    config: ServerConfig, model: str | None, source: InputRows, target: Path, *, leaves: bool = False
) -> int:
    """Predict every row of a file or a folder; return the number of rows.

    The target has the source's columns, then ``id``, ``score``, ``t_us`` and ``version``; of a model with actions
    ``decision``, with a policy ``reasons`` (codes with blanks between them), and with exploration ``explored``. It
    appears once all rows are done.

    Args:
        leaves: also write ``leaves``: a list with the index of the leaf in each tree, int32.

    Raises:
        PlaceError: the target cannot be created there.
        SourceError: a file is missing, corrupt, or lacks a column.
        RequestError: a row does not match the inputs in the plan.
        StoreError: the store or the disk failed; no target was written.
    """
    return run_coroutine(_predict_files(config, model, source, target, leaves=leaves))


def run_coroutine(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in its own thread: in a notebook this thread already runs an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _predict_rows(config: ServerConfig, name: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    async with open_predictor(config, name) as batch:
        scored_slice = await batch.predictor.predict(batch.model, rows)
        labels = batch.model.assembler.labels
        features = {label: numbers(scored_slice.matrix[:, i]) for i, label in enumerate(labels)}
        return pa.table({**_result_columns(scored_slice), **features})


async def _predict_files(
    config: ServerConfig, name: str | None, source: InputRows, target: Path, *, leaves: bool
) -> int:
    with open_targets(source, target) as write:
        async with open_predictor(config, name) as batch:
            source.check_columns(batch.model.plan, result_names(batch.model, leaves=leaves))
            total = 0
            chunks = source.read_chunks(chunk_rows(config.settings))
            async with aclosing(batch.predict_chunks(chunks, leaves=leaves)) as predicted:
                async for number, chunk, scored in predicted:
                    await asyncio.to_thread(lambda n, c, s: write(n, add_results(c, s)), number, chunk, scored)
                    total += chunk.num_rows
    return total


def result_names(model: ServedModel, *, leaves: bool) -> tuple[str, ...]:
    """Return the names of the columns of a model's results."""
    spec = model.package.spec
    scores = [f"score_{name}" for name in spec.classes]
    optional = {"decision": spec.actions, "reasons": spec.policy, "explored": spec.explore, _LEAVES: leaves}
    return (*RESULT, *scores, *(name for name, exists in optional.items() if exists))


def check_leaves_target(source: InputRows, target: Path) -> None:
    """Check that a target can have lists.

    Raises:
        RequestError: it is CSV.
    """
    if source.files[0].is_csv if writes_folder(source, target) else target.suffix == CSV:
        raise RequestError(
            "option --leaves", "needs a Parquet target: CSV has no lists", value=str(target), fix="end it in .parquet"
        )


def chunk_rows(settings: Settings) -> int:
    """Return the number of rows that are scored together."""
    return min(CHUNK_ROWS, settings.max_batch)


@dataclass(frozen=True, kw_only=True)
class BatchPredictor:
    """Predicts the rows of files with one model.

    Args:
        log_capacity: number of predictions that may wait for the log; more would be dropped.
    """

    predictor: Predictor
    model: ServedModel
    log: PredictionWriter
    log_capacity: int

    async def predict_chunks(
        self, chunks: Iterator[tuple[int, pa.Table]], *, leaves: bool = False
    ) -> AsyncGenerator[tuple[int, pa.Table, ScoredSlice], None]:
        """Yield chunks of files with their predictions, in order.

        While one chunk is scored, the features of the next are read, and the rows of one more from its file: none of
        these takes the time of another, because scoring, reading and writing release the GIL.

        Args:
            leaves: whether to find leaves, too.

        Raises:
            SourceError: a file is missing, corrupt, or has changed.
            RequestError: a row does not match the inputs in the plan, or the model has no leaves.
            StoreError: the store is unavailable.
        """
        options = Options(extras=(_LEAVES,)) if leaves else NO_OPTIONS
        loop, in_flight = asyncio.get_running_loop(), deque[tuple[int, pa.Table, asyncio.Task[ScoredSlice]]]()
        with ThreadPoolExecutor(1, "batch-rows") as reader:
            try:
                while (chunk := await loop.run_in_executor(reader, next, chunks, None)) is not None:
                    in_flight.append((*chunk, loop.create_task(self._score(chunk[1], reader, options))))
                    if len(in_flight) > _AHEAD:
                        yield await _first_of(in_flight)
                while in_flight:
                    yield await _first_of(in_flight)
            finally:
                for _, _, task in in_flight:
                    task.cancel()
                await asyncio.gather(*(task for _, _, task in in_flight), return_exceptions=True)

    async def _score(self, chunk: pa.Table, reader: ThreadPoolExecutor, options: Options) -> ScoredSlice:
        request = await asyncio.get_running_loop().run_in_executor(reader, self._request, chunk, options)
        # All chunks in flight, and one whose record is on its way, must find room in the log, which would drop them.
        rows = min(CHUNK_ROWS, self.predictor.limits.max_batch)
        most_rows = max(0, self.log_capacity - (2 + _AHEAD) * rows)
        while self.log.queued_rows > most_rows:  # noqa: ASYNC110 - the writer is a thread without an event loop
            await asyncio.sleep(_LOG_PAUSE_S)
        return await self.predictor.score(request)

    def _request(self, chunk: pa.Table, options: Options) -> ScoringRequest:
        check_count(chunk.num_rows, self.predictor.limits.max_batch)
        rows = ColumnRows(_plain_columns(self.model.plan, chunk))
        columns = self.model.parser.parse_columns(rows.columns)
        return ScoringRequest(model=self.model, n=len(rows), rows=rows, columns=columns, options=options)


async def _first_of(
    in_flight: deque[tuple[int, pa.Table, asyncio.Task[ScoredSlice]]],
) -> tuple[int, pa.Table, ScoredSlice]:
    number, chunk, task = in_flight.popleft()
    return number, chunk, await task


@asynccontextmanager
async def open_predictor(
    config: ServerConfig, name: str | None, version: str | None = None
) -> AsyncIterator[BatchPredictor]:
    """Yield the predictor of a model; without a name of the only one, without a version of the champion.

    The log is complete at the end of the block.

    Raises:
        RequestError, PackageError, StalePlanError, StoreError: the model is unknown, or cannot be served now.
    """
    async with AsyncExitStack() as stack:
        marker_history = MarkerHistory.from_runs(config.state, [])
        online = open_online_reader(config.redis_url, on_connect=marker_history.refresh_async)
        stack.push_async_callback(online.close)
        spool = prediction_spool(config.state)
        log = PredictionWriter(
            spool,
            capacity=config.settings.log_capacity,
            flush_seconds=config.settings.log_flush_seconds,
            on_drop=lambda _n, _reason: None,
            on_stored=spool.ship,
        )
        stack.callback(log.close)
        models = ModelTable(
            repo=config.repo,
            state=config.state,
            store=config.store,
            online=online,
            marker_history=marker_history,
            scoring_target=ScoringTarget(second=config.settings.second_runtime, batch_rows=CHUNK_ROWS),
        )
        if name is not None and version is not None:
            model = await models.open_version(name, version)
        else:
            await models.load()
            model = models.get(name)
        predictor = Predictor(
            online=online,
            clock=config.clock,
            log=log,
            limits=PredictorLimits.of(config.settings),
            marker_history=marker_history,
            scoring_threads=config.settings.threads or len(os.sched_getaffinity(0)),
        )
        stack.push_async_callback(predictor.close)
        yield BatchPredictor(predictor=predictor, model=model, log=log, log_capacity=config.settings.log_capacity)


def add_results(chunk: pa.Table, scored_slice: ScoredSlice) -> pa.Table:
    """Return some rows of a file with the columns of their predictions."""
    for name, values in _result_columns(scored_slice).items():
        chunk = chunk.append_column(name, values)
    return chunk


def _plain_columns(plan: FeaturePlan, chunk: pa.Table) -> dict[str, list[Any]]:
    """Return the plan's columns as plain JSON values: times as microseconds, NaN as null."""
    columns = [*plan.join_keys, *plan.request]
    return {column.name: _plain_values(chunk[column.name], column.dtype) for column in columns}


def _plain_values(column: pa.ChunkedArray, dtype: DType) -> list[Any]:
    values: list[Any] = column.to_pylist()
    is_parsed = dtype in {DType.FLOAT32, DType.FLOAT64, DType.BOOL}
    if pa.types.is_integer(column.type) or (pa.types.is_string(column.type) and not is_parsed):
        return values
    return [request_value(value, dtype) for value in values]


def _result_columns(scored_slice: ScoredSlice) -> dict[str, pa.Array]:
    n = len(scored_slice.ids)
    # Built from buffers: pa.array imports pandas, which takes longer than predicting a row.
    ids, version = texts(scored_slice.ids), texts([scored_slice.model.version] * n)
    times = numbers(np.full(n, scored_slice.t, dtype=np.int64))
    scores = scored_slice.scores
    columns = dict(zip(RESULT, (ids, numbers(largest_output(scores)), times, version), strict=True))
    spec = scored_slice.model.package.spec
    for i, name in enumerate(spec.classes):
        columns[f"score_{name}"] = numbers(scores[:, i])
    if spec.actions:
        columns["decision"] = optional_texts(scored_slice.decisions or [None] * n)
    if spec.policy is not None:
        columns["reasons"] = texts([" ".join(codes) for codes in scored_slice.reasons or [()] * n])
    if spec.explore is not None:
        columns["explored"] = booleans(np.array(scored_slice.explored or [False] * n, dtype=np.bool_))
    leaves = scored_slice.extra_values(_LEAVES)
    if leaves is not None:
        ends = numbers(np.arange(n + 1, dtype=np.int32) * np.int32(leaves.shape[1]))
        columns[_LEAVES] = pa.ListArray.from_arrays(ends, numbers(leaves))
    return columns
