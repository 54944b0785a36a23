"""The inputs of a model from the fields of events; an event without valid inputs becomes a dead letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import RequestError
from skewless.contract.status import Int64Array
from skewless.infra.log.log_columns import EVENT
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless_decisions.decision_log import DeadEvent
from skewless_decisions.events import AcceptedEvents
from skewless_decisions.pending_events import PendingEvents


class EventInputs:
    """Parses the fields of a source's events as a server parses a request.

    Args:
        event_column: field with the event time.
        metrics: counts values outside a model's bounds.
    """

    def __init__(self, event_column: str, metrics: Metrics) -> None:
        self._event_column, self._metrics = event_column, metrics

    def parse(
        self, stream: DecisionStream, model: ServedModel, events: AcceptedEvents, pending: PendingEvents
    ) -> tuple[Mapping[str, Sequence[Any]], Int64Array, list[DeadEvent]]:
        """Return the inputs of the model, the events that have valid ones, and the others as dead letters."""
        plan, everything = model.plan, np.arange(len(events))
        names = [column.name for column in (*plan.join_keys, *plan.request)]
        fields = {name: self._field(stream.column(name), events.rows) for name in names}
        try:
            columns = model.parser.parse_columns(fields)
            if model.bounds is None or model.package.spec.bounds != "refuse":
                return columns, everything, []
            if model.bounds.first_field_breach(columns) is None:
                return columns, everything, []
        except RequestError:
            pass  # some event is invalid: each is parsed alone
        valid, dead = [], []
        for i in range(len(events)):
            try:
                self._check_row(model, {name: values[i] for name, values in fields.items()})
                valid.append(i)
            except RequestError as error:
                reason = f"{error.thing.removeprefix('row 0 ')} {error.problem}"
                dead.append(DeadEvent(partition=pending.partition, seq=int(events.seq[i]), reason=reason))
        kept = {name: [values[i] for i in valid] for name, values in fields.items()}
        return (model.parser.parse_columns(kept) if valid else {}), np.array(valid, dtype=np.int64), dead

    def _check_row(self, model: ServedModel, row: Mapping[str, Any]) -> None:
        columns = model.parser.parse_rows([row])
        if model.bounds is None or model.package.spec.bounds != "refuse":
            return
        breach = model.bounds.first_field_breach(columns)
        if breach is not None:
            self._metrics.out_of_bounds(model.name, model.version, breach.name).inc()
            raise RequestError(f"field {breach.field!r}", "is outside the model's bounds", fix="correct the event")

    def _field(self, name: str, rows: pa.Table) -> list[Any]:
        """Return a field of events as plain JSON values; NaN, which JSON does not have, is null."""
        column = rows[EVENT if name == self._event_column else name]
        values = column.to_pylist()
        if pa.types.is_floating(column.type):
            return [None if value != value else value for value in values]  # noqa: PLR0124 - NaN
        return [value.decode() for value in values] if pa.types.is_binary(column.type) else values
