"""Stores batches that a gate rejected, with the reason for each bad row."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.infra.log.log_columns import INGEST, REJECT, RUN, SEQ
from skewless.infra.storage.durable import make_folder


def quarantine(rows: Path, folder: Path, reasons: Mapping[int, str]) -> None:
    """Store a rejected batch as a Parquet file that is named by the hash of its content.

    So a batch that is rejected on every tick is stored once. Memory does not grow with the rows.

    Args:
        rows: a Parquet file; rows with a reason in ``__reject`` are skipped.
        folder: created if it does not exist.
        reasons: the reason for ``__reject`` by position in ``rows``; other rows are good rows of a bad batch.
    """
    make_folder(folder)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        _copy(rows, temporary, reasons)
        # The name is the content's hash, so a repeated rejection of the same rows replaces the same file.
        with temporary.open("rb") as file:
            name = file_digest(file, "sha256").hexdigest()[:16]
        temporary.replace(folder / f"{name}.parquet")
    finally:
        temporary.unlink(missing_ok=True)


def _copy(rows: Path, target: Path, reasons: Mapping[int, str]) -> None:
    """Copy the checked rows without columns that a run adds, so that equal rows give equal bytes."""
    numbers = sorted(reasons)
    with pq.ParquetFile(rows, pre_buffer=False) as file:
        columns = [name for name in file.schema_arrow.names if name not in {SEQ, INGEST, RUN}]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        start = 0
        with pq.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(columns=columns):
                stop = start + batch.num_rows
                batch_reasons = {number - start: reasons[number] for number in _select_range(numbers, start, stop)}
                writer.write_batch(_add_reasons(batch, batch_reasons))
                start = stop


def _select_range(numbers: list[int], start: int, stop: int) -> list[int]:
    return numbers[bisect_left(numbers, start) : bisect_left(numbers, stop)]


def _add_reasons(batch: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    is_checked = pc.is_null(batch[REJECT])
    index = batch.schema.get_field_index(REJECT)
    values = pa.array([reasons.get(i) for i in range(batch.num_rows)], batch[REJECT].type)
    return batch.set_column(index, batch.schema.field(REJECT), values).filter(is_checked)
