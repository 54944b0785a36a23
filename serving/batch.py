"""Batch prediction: scores files and many rows with the same predictor as the server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from skewless.contract.clock import to_us
from skewless.contract.dtypes import DType
from skewless.contract.errors import PlaceError, SourceError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.store import open_online_reader
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.batches import numbers, texts
from skewless.infra.predictions.segments import prediction_spool
from skewless.infra.predictions.writer import PredictionWriter
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.server_config import ServerConfig

_CHUNK_ROWS = 4_096  # large enough to use a GPU
_RESULT = ("id", "score", "t_us", "version")
_T = TypeVar("_T")
_BOOLEANS = {"true": True, "false": False}


def predict_rows(config: ServerConfig, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return predictions for rows of entity keys and request features, as the server would return them now.

    Returns:
        ``id``, ``score``, ``t_us``, ``version`` and every feature of the model.
    """
    return run_coroutine(_predict_rows(config, model, rows))


def predict_file(config: ServerConfig, model: str | None, source: Path, target: Path) -> int:
    """Predict every row of a Parquet or CSV file into another file; return the number of rows.

    The target has the source's columns, then ``id``, ``score``, ``t_us`` and ``version``. It
    appears once all rows are done.

    Raises:
        PlaceError: the folder of the target does not exist.
        SourceError: the file is missing, corrupt, or lacks a column.
        RequestError: a row does not match the inputs in the plan.
        StoreError: the store or the disk failed; no target was written.
    """
    return run_coroutine(_predict_file(config, model, source, target))


def run_coroutine(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in its own thread: in a notebook this thread already runs an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _predict_rows(config: ServerConfig, name: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    async with open_predictor(config, name) as (predictor, model):
        scored_slice = await predictor.predict(model, rows)
        features = {label: numbers(scored_slice.matrix[:, i]) for i, label in enumerate(model.assembler.labels)}
        return pa.table({**_result_columns(scored_slice), **features})


async def _predict_file(config: ServerConfig, name: str | None, source: Path, target: Path) -> int:
    with open_target(target) as write:
        async with open_predictor(config, name) as (predictor, model):
            total = 0
            for chunk in read_chunks(source, model.plan, config.settings):
                write(add_results(chunk, await score_chunk(predictor, model, chunk)))
                total += chunk.num_rows
    return total


@contextmanager
def open_target(target: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Yield the function that adds rows to a Parquet or CSV file, which appears at the end of the block.

    If the block fails, or adds no rows, the file does not change.

    Raises:
        PlaceError: the folder of the file does not exist.
        StoreError: the disk refused a write.
    """
    check_folder(target)
    temporary = target.with_name(f".{target.name}.tmp")
    writer: pq.ParquetWriter | pa_csv.CSVWriter | None = None

    def write(rows: pa.Table) -> None:
        nonlocal writer
        with _report_write_errors(target):
            writer = writer or _writer(temporary, target, rows.schema)
            writer.write_table(rows)

    try:
        yield write
        with _report_write_errors(target):
            _close(writer)
            if writer is not None:
                temporary.replace(target)
    except BaseException:
        # A disk that failed to write a row may also fail to write the footer.
        with suppress(OSError):
            _close(writer)
        temporary.unlink(missing_ok=True)
        raise


def check_folder(target: Path) -> None:
    """Check that a file can be created in its folder.

    Raises:
        PlaceError: the folder does not exist.
    """
    if not target.parent.is_dir():
        raise PlaceError(f"folder {target.parent}", "does not exist", fix="create it, or choose another file")


@asynccontextmanager
async def open_predictor(
    config: ServerConfig, name: str | None, version: str | None = None
) -> AsyncIterator[tuple[Predictor, ServedModel]]:
    """Yield a predictor and a model; without a name the only one, without a version the champion.

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
            scoring_target=ScoringTarget(second=config.settings.second_runtime, alone=True),
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
        )
        stack.push_async_callback(predictor.close)
        yield predictor, model


async def score_chunk(predictor: Predictor, model: ServedModel, chunk: pa.Table) -> ScoredSlice:
    """Return the predictions of some rows of a file.

    Raises:
        RequestError: a row does not match the inputs in the plan.
        StoreError: the store is unavailable.
    """
    return await predictor.predict(model, _plain_rows(model.plan, chunk))


def add_results(chunk: pa.Table, scored_slice: ScoredSlice) -> pa.Table:
    """Return some rows of a file with the columns of their predictions."""
    for name, values in _result_columns(scored_slice).items():
        chunk = chunk.append_column(name, values)
    return chunk


def _plain_rows(plan: FeaturePlan, chunk: pa.Table) -> list[dict[str, Any]]:
    """Return table rows as JSON-like rows: only the plan's columns, times as microseconds, NaN as null."""
    values = {
        column.name: [_plain_value(v, column.dtype) for v in chunk[column.name].to_pylist()]
        for column in [*plan.join_keys, *plan.request]
    }
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _plain_value(value: object, dtype: DType) -> object:
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and dtype in {DType.FLOAT32, DType.FLOAT64}:
        return _number(value)
    if isinstance(value, str) and dtype is DType.BOOL:
        return _BOOLEANS.get(value.lower(), value)
    return value


def _number(text: str) -> object:
    try:
        number = float(text)
    except ValueError:
        return text  # the request parser rejects it, with field and value
    return None if math.isnan(number) else number


def read_chunks(source: Path, plan: FeaturePlan, settings: Settings) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet or CSV file, in their order, in chunks that are scored together.

    Raises:
        SourceError: the file is missing, corrupt or empty, lacks a column, or has a column of the result.
    """
    is_empty = True
    for chunk in _read_tables(source, min(_CHUNK_ROWS, settings.max_batch)):
        if is_empty:
            _check_columns(plan, chunk.column_names)
        is_empty = False
        yield chunk
    if is_empty:
        raise SourceError(f"file {source}", "has no rows", fix="give a file with at least one row")


def _check_columns(plan: FeaturePlan, names: Sequence[str]) -> None:
    for column in [*plan.join_keys, *plan.request]:
        if column.name not in names:
            raise SourceError("file", "lacks a column", value=column.name, fix=f"it has {', '.join(names)}")
    for name in _RESULT:
        if name in names:
            raise SourceError("file", "has a column with a name of the result", value=name, fix="rename that column")


def _read_tables(source: Path, rows: int) -> Iterator[pa.Table]:
    try:
        if source.suffix == ".csv":
            names = pa_csv.open_csv(source).schema.names
            # As text, so that a key such as "007" or "NA" keeps its characters; the request parser applies types.
            convert = pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            )
            batches = pa_csv.open_csv(source, convert_options=convert)
            for batch in batches:
                table = pa.Table.from_batches([batch])
                yield from (table.slice(i, rows) for i in range(0, table.num_rows, rows))
            return
        for batch in pq.ParquetFile(source).iter_batches(rows):
            yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"file {source}", f"cannot be read: {error}", fix="give a Parquet or CSV file") from error


def _result_columns(scored_slice: ScoredSlice) -> dict[str, pa.Array]:
    n = len(scored_slice.ids)
    # Built from buffers: pa.array imports pandas, which takes longer than predicting a row.
    ids, version = texts(scored_slice.ids), texts([scored_slice.model.version] * n)
    times = numbers(np.full(n, scored_slice.t, dtype=np.int64))
    return dict(zip(_RESULT, (ids, numbers(scored_slice.scores), times, version), strict=True))


def _writer(path: Path, target: Path, schema: pa.Schema) -> pq.ParquetWriter | pa_csv.CSVWriter:
    return pa_csv.CSVWriter(path, schema) if target.suffix == ".csv" else pq.ParquetWriter(path, schema)


@contextmanager
def _report_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"file {target}", f"cannot be written: {error}", fix="free disk space, or choose another file"
        ) from error


def _close(writer: pq.ParquetWriter | pa_csv.CSVWriter | None) -> None:
    if writer is not None:
        writer.close()
