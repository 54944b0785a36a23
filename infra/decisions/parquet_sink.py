"""Delivers decisions as Parquet files, named by their positions, so that a file that is written again is the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.sinks import ParquetSink
from skewless.infra.decisions.outbox import DecisionBatch
from skewless.infra.decisions.sink_positions import Refusal
from skewless.infra.storage.durable import sync_file, translate_disk_errors
from skewless.infra.storage.objects import ObjectStorage

FOLDER = "decisions"
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("stream", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("action", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("inputs", pa.string()),
        ("partition", pa.string()),
        ("position", pa.int64()),
        ("event_time", _TIME),
        ("decided_at", _TIME),
        ("late", pa.bool_()),
    ]
)


class ParquetDelivery:
    """Implements ``DecisionSink`` for files in the project's storage; a reader sees complete files only.

    Args:
        sink: its declaration.
        storage: of the project.
    """

    retry_after_s: float | None = None

    def __init__(self, sink: ParquetSink, storage: ObjectStorage) -> None:
        self._folder, self._storage = f"{FOLDER}/{sink.name}", storage

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch as one file; see ``DecisionSink``."""
        rows = pa.Table.from_pylist([decision.as_dict() for decision in batch.decisions], SCHEMA)
        path = self._storage.staging_path()
        with translate_disk_errors(path):
            try:
                pq.write_table(rows, path, compression="zstd")
                # Before it has its name: a file with a name is complete, even after a power failure.
                sync_file(path)
                self._storage.put_file(f"{self._folder}/{batch.first:020d}-{batch.last:020d}.parquet", path)
            finally:
                with suppress(OSError):
                    path.unlink()
        return ()

    def close(self) -> None:
        """Do nothing; see ``DecisionSink``."""
