"""A decision as sinks deliver it, read from its row in the prediction log, and its message in each format."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.contract.sinks import MessageFormat
from skewless.infra.formats.avro import AvroWriter
from skewless.infra.formats.frame import add_frame, encode_indexes
from skewless.infra.formats.protobuf import ProtobufWriter, import_protobuf
from skewless.infra.formats.registry import SchemaKind, SchemaRegistry
from skewless.infra.predictions.segments import EVENT, SCHEMA

_READ_COLUMNS = ("id", "t", "model", "version", "inputs", "score", "scores", "action", "reasons")
COLUMNS = pa.schema([field for field in SCHEMA if field.name in {*_READ_COLUMNS, "role", "event"}])


@dataclass(frozen=True, kw_only=True)
class LoggedDecision:
    """One decision.

    Args:
        id: of the prediction; it follows from the event and the decision stream, so a second delivery has it too.
        stream: name of the decision stream.
        model, version: of the score.
        score: the score; for several outputs, the largest.
        scores: all outputs of a model with several; None: it has one.
        partition, position: of the event in the accepted log.
        event_us: event time, UTC microseconds.
        decided_us: time for which features were read, UTC microseconds.
        is_late: the event came after newer events.
        inputs: JSON text of keys and request fields.
        action: of the policy; None: the model has no policy.
        reasons: of the action.
    """

    id: str
    stream: str
    model: str
    version: str
    score: float
    scores: tuple[float, ...] | None = None
    partition: str
    position: int
    event_us: int
    decided_us: int
    is_late: bool = False
    inputs: str
    action: str | None = None
    reasons: tuple[str, ...] = ()

    def key(self, field: str | None) -> str:
        """Return the text of an input, or of the event's log partition, within which the order is kept."""
        if field is None:
            return self.partition
        value = orjson.loads(self.inputs).get(field)
        return value if isinstance(value, str) else orjson.dumps(value).decode()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a message; times are UTC microseconds."""
        return {
            "id": self.id,
            "stream": self.stream,
            "model": self.model,
            "version": self.version,
            "score": self.score,
            "scores": None if self.scores is None else list(self.scores),
            "action": self.action,
            "reasons": list(self.reasons),
            "inputs": self.inputs,
            "partition": self.partition,
            "position": self.position,
            "event_time": self.event_us,
            "decided_at": self.decided_us,
            "late": self.is_late,
        }


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
    events = zip(*(event.field(field.name).to_pylist() for field in EVENT), strict=True)
    none = [None] * found.num_rows
    columns = [_values(found[name]) if name in found.column_names else none for name in _READ_COLUMNS]
    return [
        (offset, _read_row(event, row))
        for offset, event, row in zip(offsets.to_pylist(), events, zip(*columns, strict=True), strict=True)
        if streams is None or event[0] in streams
    ]


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    return [None] * len(column) if column.null_count == len(column) else column.to_pylist()


def _read_row(event: Sequence[Any], row: Sequence[Any]) -> LoggedDecision:
    stream, partition, position, event_us, is_late = event
    name, decided_us, model, version, inputs, score, scores, action, reasons = row
    return LoggedDecision(
        id=name,
        stream=stream,
        model=model,
        version=version,
        score=score,
        scores=None if scores is None else tuple(scores),
        partition=partition,
        position=position,
        event_us=event_us,
        decided_us=decided_us,
        is_late=is_late,
        inputs=inputs,
        action=action,
        reasons=tuple(reasons or ()),
    )


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
        times = {"event_time": _iso_text(decision.event_us), "decided_at": _iso_text(decision.decided_us)}
        return orjson.dumps(decision.as_dict() | times | {"inputs": orjson.Fragment(decision.inputs)})


class FramedMessages:
    """Writes Avro or Protobuf in the schema registry's wire format.

    Args:
        name: of the format.
        head: bytes before each message: the id of the schema, and the message indexes.
        writer: of the rest.
    """

    def __init__(self, name: str, head: bytes, writer: AvroWriter | ProtobufWriter) -> None:
        self.content_type = f"application/vnd.{name}"
        self._head, self._writer = head, writer

    def write(self, decision: LoggedDecision) -> bytes:
        """Return the message of a decision."""
        return self._head + self._writer.write(decision.as_dict())


@dataclass(frozen=True, kw_only=True)
class MessageSchema:
    """The schema of decisions in one format.

    Args:
        kind: its language in the registry.
        text: as the registry stores it.
        writer: of messages.
    """

    kind: SchemaKind
    text: str
    writer: AvroWriter | ProtobufWriter

    @classmethod
    def of(cls, name: MessageFormat) -> MessageSchema:
        """Return the schema of a format other than JSON.

        Raises:
            DefinitionError: its package is not installed.
        """
        if name == "avro":
            avro = AvroWriter(_AVRO)
            return cls(kind="AVRO", text=avro.text, writer=avro)
        import_protobuf()
        protobuf = ProtobufWriter(_protobuf_file())
        return cls(kind="PROTOBUF", text=protobuf.text, writer=protobuf)

    def open(self, schema_id: int) -> FramedMessages:
        """Return a writer of messages whose schema has an id in the registry."""
        head = add_frame(schema_id, encode_indexes((0,)) if self.kind == "PROTOBUF" else b"")
        return FramedMessages(self.kind.lower(), head, self.writer)

    def register(self, registry: SchemaRegistry, subject: str) -> int:
        """Register the schema, unless it is there already; return its id."""
        return registry.register(subject, self.kind, self.text)


_TIME = {"type": "long", "logicalType": "timestamp-micros"}
_AVRO_TYPES: Mapping[str, Any] = {
    "id": "string",
    "stream": "string",
    "model": "string",
    "version": "string",
    "score": "double",
    "scores": ["null", {"type": "array", "items": "double"}],
    "action": ["null", "string"],
    "reasons": {"type": "array", "items": "string"},
    "inputs": "string",
    "partition": "string",
    "position": "long",
    "event_time": _TIME,
    "decided_at": _TIME,
    "late": "boolean",
}
_DEFAULTS: Mapping[str, Any] = {"scores": None, "action": None, "reasons": []}
_AVRO: Mapping[str, Any] = {
    "type": "record",
    "name": "Decision",
    "namespace": "skewless",
    "fields": [
        {"name": name, "type": kind, **({"default": _DEFAULTS[name]} if name in _DEFAULTS else {})}
        for name, kind in _AVRO_TYPES.items()
    ],
}
# Numbers are never given to another field; repeated fields and optional ones are marked.
_PROTOBUF: Sequence[tuple[int, str, str, str]] = (
    (1, "id", "string", ""),
    (2, "stream", "string", ""),
    (3, "model", "string", ""),
    (4, "version", "string", ""),
    (5, "score", "double", ""),
    (6, "scores", "double", "repeated"),
    (7, "action", "string", "optional"),
    (8, "reasons", "string", "repeated"),
    (9, "inputs", "string", ""),
    (10, "partition", "string", ""),
    (11, "position", "int64", ""),
    (12, "event_time", "int64", ""),
    (13, "decided_at", "int64", ""),
    (14, "late", "bool", ""),
)


def _protobuf_file() -> Any:  # noqa: ANN401 - an optional dependency
    """Return ``skewless/decision.proto`` as a FileDescriptorProto; times are microseconds."""
    from google.protobuf import descriptor_pb2  # noqa: PLC0415 - an optional dependency

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="skewless/decision.proto", package="skewless", syntax="proto3")
    message = file.message_type.add(name="Decision")
    for number, name, kind, mark in _PROTOBUF:
        label = kinds.LABEL_REPEATED if mark == "repeated" else kinds.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, label=label, type=getattr(kinds, f"TYPE_{kind.upper()}"))
        if mark == "optional":
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
    return file


def _iso_text(time_us: int) -> str:
    return from_us(time_us).isoformat(timespec="microseconds")
