"""Writes the outcome log: one file per batch of outcomes, durable on the local disk when ``append`` returns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence

import pyarrow as pa

from skewless.contract.feedback import Outcome
from skewless.infra.log.spool import Spool
from skewless.infra.storage.project_state import ProjectState

OUTCOMES = "outcomes"  # name of the log
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
        spool: of the log, on the local disk.
        on_stored: called after each batch; by default it waits until the batch is in the log.
    """

    def __init__(self, spool: Spool, on_stored: Callable[[], object] | None = None) -> None:
        self._spool = spool
        self._on_stored = on_stored or spool.ship
        self._name = uuid.uuid4().hex[:12]
        self._files = 0

    def append(self, outcomes: Sequence[Outcome], *, received_at: int, source: str) -> str:
        """Write outcomes and wait until they are durable; return the name of their batch.

        Args:
            outcomes: at least one.
            received_at: the clock, UTC microseconds.
            source: their origin: ``http``, or the name of a file.

        Raises:
            StoreError: the disk refused the write, and the log is unchanged; or ``on_stored`` failed, and the outcomes
                are on the disk, from where they are shipped later.
        """
        batch = f"{self._name}-{self._files:06d}"
        path = self._spool.path(received_at, self._name, self._files)
        table = to_table(outcomes, received_at=received_at, batch=batch, source=source)
        self._spool.store(path, table)
        self._files += 1
        self._on_stored()
        return batch


def outcome_spool(state: ProjectState) -> Spool:
    """Return where the processes of this machine write outcomes."""
    return Spool(state, OUTCOMES, SCHEMA, {"compression": "zstd"})


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
