"""A prediction log with decisions, appended as a decider appends them, without models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from skewless.infra.log.catalog import Segment
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import CONTENT
from skewless_decisions.decision_log import DecisionLog

T_US = 1_760_000_000_000_000
STREAM, PARTITION = "fraud", "events/payments/ab12/0"
KEYS = 5


def decision_id(position: int) -> str:
    """Return the id of the decision for the event at a position."""
    return f"1a221e2b142-8c81a2f7-{position:x}"


def decided_rows(
    positions: Iterable[int], *, stream: str | None = STREAM, role: str = "champion", note: str = ""
) -> pa.Table:
    """Return rows of the prediction log about the events at some positions; without a stream: requested ones."""
    rows: list[dict[str, Any]] = []
    for position in positions:
        event = {"stream": stream, "partition": PARTITION, "seq": position, "event_ts": T_US + position, "late": False}
        inputs = {"card": position % KEYS, "amount": position / 4, **({"note": note} if note else {})}
        rows.append(
            {
                "id": decision_id(position),
                "t": T_US + 1_000_000 + position,
                "model": "fraud",
                "version": "000001",
                "source": "entities",
                "inputs": json.dumps(inputs),
                "score": position / 1_000,
                "format": 3,
                "role": role,
                "event": None if stream is None else event,
            }
        )
    return pa.Table.from_pylist(rows, CONTENT)


def append_decisions(
    state: ProjectState,
    positions: Sequence[int],
    *,
    stream: str | None = STREAM,
    role: str = "champion",
    note: str = "",
) -> tuple[Segment, pa.Table]:
    """Append decisions to the prediction log; return their segment and rows."""
    rows = decided_rows(positions, stream=stream, role=role, note=note)
    segment = DecisionLog(state).append(rows, [], T_US)
    assert segment is not None
    return segment, rows
