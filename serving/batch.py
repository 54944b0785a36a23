"""Batch prediction: many rows through the same predictor that answers requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
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
from skewless.infra.predictions.writer import PredictionWriter
from skewless.infra.runtimes.candidates import ScoringTarget
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.server_config import ServerConfig

_CHUNK_ROWS = 4_096  # enough for a GPU to be worth it
_T = TypeVar("_T")
_BOOLEANS = {"true": True, "false": False}


def predict_rows(config: ServerConfig, model: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return predictions for rows of entity keys and request fields, as the server would now.

    Returns:
        ``id``, ``score``, ``t_us``, ``version`` and every feature that the model saw.
    """
    return _run(_predict_rows(config, model, rows))


def predict_file(config: ServerConfig, model: str | None, source: Path, target: Path) -> int:
    """Predict every row of a Parquet or CSV file into another; return the number of rows.

    The target has the source's columns, then ``id``, ``score``, ``t_us`` and ``version``; it
    appears when all rows are done.

    Raises:
        PlaceError: there is no folder for the target.
        SourceError: the file is missing, broken or lacks a column.
        RequestError: a row is not as the plan says.
        StoreError: the store or the disk refused; there is no target then.
    """
    return _run(_predict_file(config, model, source, target))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end, in a thread of its own: a notebook has a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _predict_rows(config: ServerConfig, name: str | None, rows: Sequence[dict[str, Any]]) -> pa.Table:
    async with _open(config, name) as (predictor, model):
        answer = await predictor.predict(model, rows)
        features = {label: numbers(answer.matrix[:, i]) for i, label in enumerate(model.assembler.labels)}
        return pa.table({**_result(answer), **features})


async def _predict_file(config: ServerConfig, name: str | None, source: Path, target: Path) -> int:
    if not target.parent.is_dir():
        raise PlaceError(f"folder {target.parent}", "does not exist", fix="make it, or name another file")
    total, writer = 0, None
    temporary = target.with_name(f".{target.name}.tmp")
    async with _open(config, name) as (predictor, model):
        try:
            for chunk in _chunks(source, min(_CHUNK_ROWS, config.settings.max_batch)):
                answer = await predictor.predict(model, plain_rows(model.plan, chunk))
                result = _with_columns(chunk, _result(answer))
                with _writing(target):
                    writer = writer or _writer(temporary, target, result.schema)
                    writer.write_table(result)
                total += chunk.num_rows
            _refuse_empty(source, total)
            with _writing(target):
                _close(writer)
        except BaseException:
            # A disk that refused a row may refuse the footer too.
            with suppress(OSError):
                _close(writer)
            temporary.unlink(missing_ok=True)
            raise
    temporary.replace(target)
    return total


@asynccontextmanager
async def _open(config: ServerConfig, name: str | None) -> AsyncIterator[tuple[Predictor, ServedModel]]:
    guard = MarkerHistory.of_runs(config.state, [])
    online = open_online_reader(config.redis_url, on_connect=guard.renewed)
    log = PredictionWriter(
        config.state / "predictions",
        capacity=config.settings.log_capacity,
        flush_seconds=config.settings.log_flush_seconds,
        on_drop=lambda _n, _reason: None,
    )
    place = ScoringTarget(second=config.settings.second_runtime, alone=True)
    try:
        models = ModelTable(
            repo=config.repo, state=config.state, store=config.store, online=online, guard=guard, place=place
        )
        await models.load()
        model = models.get(name)
        predictor = Predictor(
            online=online,
            clock=config.clock,
            log=log,
            limits=PredictorLimits.of(config.settings),
            guard=guard,
        )
        yield predictor, model
        await predictor.close()
    finally:
        log.close()
        await online.close()


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
    values = {column.name: [_plain(v, column.dtype) for v in chunk[column.name].to_pylist()] for column in columns}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _plain(value: object, dtype: DType) -> object:
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
        return text  # refused, by field and value, where the request is parsed
    return None if math.isnan(number) else number


def _chunks(source: Path, rows: int) -> Iterator[pa.Table]:
    try:
        if source.suffix == ".csv":
            names = pa_csv.open_csv(source).schema.names
            # Text, so that a key such as "007" or "NA" stays what it is; the plan's types are applied later.
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


def _result(answer: ScoredSlice) -> dict[str, pa.Array]:
    n = len(answer.ids)
    return {  # made from buffers: pa.array would import pandas, which takes longer than to predict a row
        "id": texts(answer.ids),
        "score": numbers(answer.scores),
        "t_us": numbers(np.full(n, answer.t, dtype=np.int64)),
        "version": texts([answer.model.version] * n),
    }


def _with_columns(chunk: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        if name in chunk.column_names:
            raise SourceError("file", "already has a column of the answer", value=name, fix="rename that column")
        chunk = chunk.append_column(name, values)
    return chunk


def _writer(path: Path, target: Path, schema: pa.Schema) -> pq.ParquetWriter | pa_csv.CSVWriter:
    return pa_csv.CSVWriter(path, schema) if target.suffix == ".csv" else pq.ParquetWriter(path, schema)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"file {target}", f"cannot be written: {error}", fix="make room, or name another file"
        ) from error


def _close(writer: pq.ParquetWriter | pa_csv.CSVWriter | None) -> None:
    if writer is not None:
        writer.close()


def _refuse_empty(source: Path, total: int) -> None:
    if total == 0:
        raise SourceError(f"file {source}", "has no row", fix="give at least one row")
