"""Batches that a gate refused: kept whole, each bad row with the reason, until their source is corrected."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.infra.log.accepted import INGEST, REJECT, RUN, SEQ
from skewless.infra.storage.durable import make_folder


def quarantine(rows: Path, folder: Path, reasons: Mapping[int, str]) -> None:
    """Keep what a gate has judged and refused as a Parquet file of the folder, named by its content.

    So a batch that is refused on every tick is kept once. Memory does not grow with the rows.

    Args:
        rows: a Parquet file; its rows that have a reason in ``__reject`` are left out.
        folder: made if it is not there.
        reasons: by position in ``rows``, why a row was refused: put into ``__reject``; rows without one are good
            rows of a bad batch.
    """
    make_folder(folder)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        _copy(rows, temporary, reasons)
        with temporary.open("rb") as file:
            name = file_digest(file, "sha256").hexdigest()[:16]
        temporary.replace(folder / f"{name}.parquet")
    finally:
        temporary.unlink(missing_ok=True)


def _copy(rows: Path, target: Path, reasons: Mapping[int, str]) -> None:
    """Copy the judged rows without what a run adds, so that the same rows give the same bytes."""
    numbers = sorted(reasons)
    with pq.ParquetFile(rows, pre_buffer=False) as file:
        columns = [name for name in file.schema_arrow.names if name not in {SEQ, INGEST, RUN}]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        start = 0
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(columns=columns):
                stop = start + batch.num_rows
                told = {number - start: reasons[number] for number in _within(numbers, start, stop)}
                writer.write_batch(_judged(batch, told))
                start = stop


def _within(numbers: list[int], start: int, stop: int) -> list[int]:
    return numbers[bisect_left(numbers, start) : bisect_left(numbers, stop)]


def _judged(batch: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    good = pc.is_null(batch[REJECT])
    place = batch.schema.get_field_index(REJECT)
    told = pa.array([reasons.get(i) for i in range(batch.num_rows)], batch[REJECT].type)
    return batch.set_column(place, batch.schema.field(REJECT), told).filter(good)
