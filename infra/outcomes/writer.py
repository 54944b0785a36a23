"""Writes the outcome log: one Parquet file per batch of outcomes, durable when ``append`` returns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.feedback import Outcome
from skewless.infra.log.inventory import Inventory, add_to_inventory
from skewless.infra.storage.durable import disk_error, make_folder, sync_file, sync_folder
from skewless.infra.storage.project_state import ProjectState

FOLDER = "outcomes"
SCHEMA = pa.schema(
    [
        ("received_at", pa.int64()),
        ("batch", pa.string()),  # batch and row identify an outcome, however often files are merged
        ("row", pa.int32()),
        ("source", pa.string()),
        ("prediction_id", pa.string()),
        ("model", pa.string()),
        ("keys", pa.string()),
        ("event_time", pa.int64()),
        ("label", pa.float64()),
        ("value", pa.float64()),
        ("known_at", pa.int64()),
    ]
)


class OutcomeWriter:
    """Appends to the outcome log of a project; several processes may append at the same time.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._folder = state / FOLDER
        self._name = uuid.uuid4().hex[:12]
        self._files = 0

    def append(self, outcomes: Sequence[Outcome], *, received_at: int, source: str) -> Path:
        """Write outcomes and wait until they are durable; return the file.

        Args:
            outcomes: at least one.
            received_at: the clock, UTC microseconds.
            source: their origin: ``http``, or the name of a file.

        Raises:
            StoreError: the disk refused the write; the log is unchanged.
        """
        batch = f"{self._name}-{self._files:06d}"
        self._files += 1
        path = self._folder / f"{received_at:020d}-{batch}.parquet"
        store(path, to_table(outcomes, received_at=received_at, batch=batch, source=source))
        return path


def store(path: Path, table: pa.Table) -> None:
    """Write a file of the log atomically and durably.

    Raises:
        StoreError: the disk refused the write.
    """
    temporary = path.with_suffix(".tmp")
    try:
        make_folder(path.parent)
        pq.write_table(table, temporary, compression="zstd")
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error
    # Last: a kill before it leaves a complete file, which readers accept without an entry. An entry without its file
    # would be reported as a loss.
    add_to_inventory(Inventory(path.parent), path, table.num_rows)


def to_table(outcomes: Sequence[Outcome], *, received_at: int, batch: str, source: str) -> pa.Table:
    """Return outcomes in the log's schema."""
    n = len(outcomes)
    columns = {
        "received_at": [received_at] * n,
        "batch": [batch] * n,
        "row": range(n),
        "source": [source] * n,
        "prediction_id": [outcome.prediction_id for outcome in outcomes],
        "model": [outcome.model for outcome in outcomes],
        "keys": [keys_text(outcome) for outcome in outcomes],
        "event_time": [outcome.event_time for outcome in outcomes],
        "label": [outcome.label for outcome in outcomes],
        "value": [outcome.value for outcome in outcomes],
        "known_at": [outcome.known_at for outcome in outcomes],
    }
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})


def keys_text(outcome: Outcome) -> str | None:
    """Return the keys as the log stores them: a JSON object of texts, in order of their names."""
    if outcome.prediction_id is not None:
        return None
    return json.dumps(dict(outcome.keys), ensure_ascii=False, separators=(",", ":"))
