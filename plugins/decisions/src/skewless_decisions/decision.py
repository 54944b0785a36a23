"""A decision as sinks deliver it, read from its row in the prediction log, and its message in each format."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.contract.sinks import MessageFormat
from skewless.infra.records.predictions.segments import EVENT, SCHEMA
from skewless_decisions.codec import RecordWriter, add_frame, require_codec


class LoggedDecision(NamedTuple):
    """One decision, with the fields of its message; times are UTC microseconds.

    Args:
        id: of the prediction; it follows from the event and the decision stream, so a second delivery has it too.
        stream: name of the decision stream.
        model, version: of the score.
        score: the score; for several outputs, the largest.
        scores: all outputs of a model with several; None: it has one.
        action: of the policy; None: the model has no policy.
        reasons: of the action.
        inputs: JSON text of keys and request fields.
        partition, position: of the event in the accepted log.
        event_time: of the event.
        decided_at: time for which features were read.
        late: the event came after newer events.
    """

    id: str
    stream: str
    model: str
    version: str
    score: float
    scores: list[float] | None
    action: str | None
    reasons: list[str]
    inputs: str
    partition: str
    position: int
    event_time: int
    decided_at: int
    late: bool

    def key(self, field: str | None) -> str:
        """Return the text of an input, or of the event's log partition, within which the order is kept."""
        if field is None:
            return self.partition
        value = orjson.loads(self.inputs).get(field)
        return value if isinstance(value, str) else orjson.dumps(value).decode()


_OTHER_NAMES = {"position": "seq", "event_time": "event_ts", "decided_at": "t"}  # of columns
_NAMES = [_OTHER_NAMES.get(field, field) for field in LoggedDecision._fields]
_OF_EVENT = {field.name for field in EVENT}
COLUMNS = pa.schema([field for field in SCHEMA if field.name in {*_NAMES, "role", "event"}])


def find_decisions(rows: pa.Table, streams: Collection[str] | None) -> list[tuple[int, LoggedDecision]]:
    """Return the decisions of some streams among rows of the prediction log, with their offsets; shadows are skipped.

    Args:
        rows: with the columns of ``COLUMNS``.
        streams: names of decision streams; None: all.
    """
    if rows["event"].null_count == rows.num_rows:
        return []
    is_served = pc.and_kleene(rows["event"].is_valid(), pc.not_equal(rows["role"], "shadow"))
    offsets = pc.indices_nonzero(is_served)
    found = rows if len(offsets) == rows.num_rows else rows.take(offsets)
    event = found["event"].combine_chunks()
    columns = [_read_column(found, event, name) for name in _NAMES]
    decisions = map(LoggedDecision._make, zip(*columns, strict=True))
    return [
        (offset, decision)
        for offset, decision in zip(offsets.to_pylist(), decisions, strict=True)
        if streams is None or decision.stream in streams
    ]


def _read_column(rows: pa.Table, event: pa.StructArray, name: str) -> list[Any]:
    """Return the values of a column of rows or of their events; None: the rows lack it."""
    if name not in _OF_EVENT and name not in rows.column_names:
        return [None] * rows.num_rows
    column = event.field(name) if name in _OF_EVENT else rows[name]
    values = [None] * len(column) if column.null_count == len(column) else column.to_pylist()
    return [codes or [] for codes in values] if name == "reasons" else values


class MessageWriter(Protocol):
    """Writes decisions in one format; the same decision always gives the same bytes."""

    content_type: str

    def write(self, decision: LoggedDecision) -> bytes:
        """Return the message of a decision."""
        ...


class JsonMessages:
    """Writes JSON objects; times are in ISO 8601, and a score that is not finite is null."""

    content_type = "application/json"

    def write(self, decision: LoggedDecision) -> bytes:
        """Return the message of a decision."""
        times = {"event_time": _iso_text(decision.event_time), "decided_at": _iso_text(decision.decided_at)}
        return orjson.dumps(decision._asdict() | times | {"inputs": orjson.Fragment(decision.inputs)})


class FramedMessages:
    """Writes Avro or Protobuf in the schema registry's wire format.

    Args:
        writer: of the schema of decisions.
        schema_id: the schema's id in the registry.
    """

    def __init__(self, writer: RecordWriter, schema_id: int) -> None:
        self.content_type = f"application/vnd.{writer.kind.lower()}"
        self._head, self._writer = add_frame(schema_id, writer.head), writer

    def write(self, decision: LoggedDecision) -> bytes:
        """Return the message of a decision."""
        return self._head + self._writer.write(decision._asdict())


def open_schema(name: MessageFormat) -> RecordWriter:
    """Return a writer of the schema of decisions in a format other than JSON.

    Raises:
        DefinitionError: it is not installed.
    """
    return require_codec(name).open_writer("Decision", MESSAGE, _OPTIONAL)


_TIME = pa.timestamp("us", tz="UTC")
# New fields come last: the place of a field is its number in Protobuf, which is never given to another one.
MESSAGE = pa.schema(
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
_OPTIONAL = {"scores", "action"}


def _iso_text(time_us: int) -> str:
    return from_us(time_us).isoformat(timespec="microseconds")
