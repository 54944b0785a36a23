"""Delivers decisions as Parquet files, named by their positions, so that a file that is written again is the same."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from skewless.contract.sinks import ParquetSink
from skewless.infra.log.compaction import write_rows
from skewless.infra.platform.storage.durable import sync_file, translate_disk_errors
from skewless.infra.platform.storage.objects import ObjectStorage
from skewless_decisions.decision import MESSAGE
from skewless_decisions.outbox import DecisionBatch
from skewless_decisions.sink_positions import Refusal

FOLDER = "decisions"


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
        rows = pa.Table.from_pylist([decision._asdict() for decision in batch.decisions], MESSAGE)
        with write_rows(self._storage, [rows], MESSAGE, lambda _: {"compression": "zstd"}) as (path, _):
            with translate_disk_errors(path):
                # Before it has its name: a file with a name is complete, even after a power failure.
                sync_file(path)
            self._storage.put_file(f"{self._folder}/{batch.first:020d}-{batch.last:020d}.parquet", path)
        return ()

    def close(self) -> None:
        """Do nothing; see ``DecisionSink``."""
