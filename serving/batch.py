"""Batch prediction: scores files and many rows with the same predictor as the server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
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
_T = TypeVar("_T")
_BOOLEANS = {"true": True, "false": False}


def predict_rows(config: ServerConfig, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return predictions for rows of entity keys and request features, as the server would return them now.

    Returns:
        ``id``, ``score``, ``t_us``, ``version`` and every feature of the model.
    """
    return _run(_predict_rows(config, model, rows))


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
    return _run(_predict_file(config, model, source, target))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in its own thread: in a notebook this thread already runs an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _predict_rows(config: ServerConfig, name: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    async with _open(config, name) as (predictor, model):
        scored_slice = await predictor.predict(model, rows)
        features = {label: numbers(scored_slice.matrix[:, i]) for i, label in enumerate(model.assembler.labels)}
        return pa.table({**_result_columns(scored_slice), **features})


async def _predict_file(config: ServerConfig, name: str | None, source: Path, target: Path) -> int:
    if not target.parent.is_dir():
        raise PlaceError(f"folder {target.parent}", "does not exist", fix="create it, or choose another file")
    total, writer = 0, None
    temporary = target.with_name(f".{target.name}.tmp")
    async with _open(config, name) as (predictor, model):
        try:
            for chunk in _read_chunks(source, min(_CHUNK_ROWS, config.settings.max_batch)):
                scored_slice = await predictor.predict(model, plain_rows(model.plan, chunk))
                result = _with_columns(chunk, _result_columns(scored_slice))
                with _report_write_errors(target):
                    writer = writer or _writer(temporary, target, result.schema)
                    writer.write_table(result)
                total += chunk.num_rows
            _check_not_empty(source, total)
            with _report_write_errors(target):
                _close(writer)
        except BaseException:
            # A disk that failed to write a row may also fail to write the footer.
            with suppress(OSError):
                _close(writer)
            temporary.unlink(missing_ok=True)
            raise
    temporary.replace(target)
    return total


@asynccontextmanager
async def _open(config: ServerConfig, name: str | None) -> AsyncIterator[tuple[Predictor, ServedModel]]:
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


def plain_rows(plan: FeaturePlan, chunk: pa.Table) -> list[dict[str, Any]]:
    """Return table rows as JSON-like rows: only the plan's columns, times as microseconds, NaN as null.

    Raises:
        SourceError: a column is missing.
    """
    columns = [*plan.join_keys, *plan.request]
    for column in columns:
        if column.name not in chunk.column_names:
            raise SourceError(
                "file", "lacks a column", value=column.name, fix=f"it has {', '.join(chunk.column_names)}"
            )
    values = {
        column.name: [_plain_value(v, column.dtype) for v in chunk[column.name].to_pylist()] for column in columns
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


def _read_chunks(source: Path, rows: int) -> Iterator[pa.Table]:
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
    return {  # built from buffers: pa.array imports pandas, which takes longer than predicting a row
        "id": texts(scored_slice.ids),
        "score": numbers(scored_slice.scores),
        "t_us": numbers(np.full(n, scored_slice.t, dtype=np.int64)),
        "version": texts([scored_slice.model.version] * n),
    }


def _with_columns(chunk: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        if name in chunk.column_names:
            raise SourceError("file", "has a column with a name of the result", value=name, fix="rename that column")
        chunk = chunk.append_column(name, values)
    return chunk


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


def _check_not_empty(source: Path, total: int) -> None:
    if total == 0:
        raise SourceError(f"file {source}", "has no rows", fix="give a file with at least one row")
