"""Event schemas of all formats, and messages in the registry's wire format, written without our writers."""

from __future__ import annotations

import base64
import io
import json
import struct
from dataclasses import replace
from typing import Any

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.windows.view import EventSource
from tests.worlds.streams import BASE

AVRO = EventSource(
    name="payments",
    kind="kafka",
    topic="payments",
    servers="localhost:9092",
    format="avro",
    event_column="at",
    columns=(
        Column(name="card", dtype=DType.INT64),
        Column(name="amount", dtype=DType.FLOAT64),
        Column(name="shop", dtype=DType.STRING),
        Column(name="online", dtype=DType.BOOL),
    ),
    earliest_us=0,
    latest_us=4 * BASE,
)
PROTOBUF = replace(AVRO, format="protobuf")
JSON_SCHEMA = replace(AVRO, format="json-schema")
MICROSECONDS = {"type": "long", "logicalType": "timestamp-micros"}
AVRO_FIELDS: dict[str, dict[str, Any]] = {
    "card": {"type": "long"},
    "amount": {"type": ["null", "double"], "default": None},
    "shop": {"type": "string"},
    "online": {"type": "boolean"},
    "at": {"type": MICROSECONDS},
}
JSON_PROPERTIES: dict[str, dict[str, Any]] = {
    "card": {"type": "integer"},
    "amount": {"type": ["number", "null"], "minimum": 0},
    "shop": {"type": "string", "pattern": "^[a-z]*$"},
    "online": {"type": "boolean"},
    "at": {"type": "integer"},
}
TYPES = descriptor_pb2.FieldDescriptorProto
PROTO_FIELDS: dict[str, int] = {
    "card": TYPES.TYPE_INT64,
    "amount": TYPES.TYPE_DOUBLE,
    "shop": TYPES.TYPE_STRING,
    "online": TYPES.TYPE_BOOL,
}


def avro_schema(**changes: dict[str, Any] | None) -> dict[str, Any]:
    """Return the schema of payments with changed fields; None: without the field."""
    fields = {name: field for name, field in (AVRO_FIELDS | changes).items() if field is not None}
    items = [{"name": name, **field} for name, field in fields.items()]
    return {"type": "record", "name": "Payment", "namespace": "shop", "fields": items}


def avro_message(number: int, schema: dict[str, Any], record: dict[str, Any], *references: dict[str, Any]) -> bytes:
    """Return a record as a producer sends it; ``references``: of its schema, in order."""
    stream, named = io.BytesIO(), dict[str, Any]()
    for each in references:
        fastavro.parse_schema(json.loads(json.dumps(each)), named)
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(json.dumps(schema)), named), record)
    return b"\0" + struct.pack(">I", number) + stream.getvalue()


def json_schema(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the schema of payments with changed properties; None: without the property."""
    properties = {name: each for name, each in (JSON_PROPERTIES | changes).items() if each is not None}
    return {"type": "object", "properties": properties, "required": ["card"]}


def json_message(number: int, event: object) -> bytes:
    """Return an event as a producer sends it."""
    return b"\0" + struct.pack(">I", number) + json.dumps(event).encode()


def proto_file(fields: dict[str, int] | None = None, optional: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - generated
    """Return a file with the message ``shop.Payment``; ``at`` is a Timestamp."""
    file = descriptor_pb2.FileDescriptorProto(name="payment.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    message = file.message_type.add(name="Payment")
    for number, (name, kind) in enumerate((PROTO_FIELDS if fields is None else fields).items(), 1):
        field = message.field.add(name=name, number=number, type=kind, label=TYPES.LABEL_OPTIONAL)
        if name in optional:
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
    time = ".google.protobuf.Timestamp"
    message.field.add(name="at", number=99, type=TYPES.TYPE_MESSAGE, type_name=time, label=TYPES.LABEL_OPTIONAL)
    return file


def proto_text(file: Any) -> str:  # noqa: ANN401 - generated
    """Return a file as the registry stores it."""
    return base64.b64encode(file.SerializeToString()).decode()


def proto_message(number: int, file: Any, values: dict[str, Any], at_us: int | None = BASE) -> bytes:  # noqa: ANN401 - generated
    """Return a message as a producer sends it."""
    from google.protobuf import timestamp_pb2  # noqa: PLC0415 - only here

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    kind: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Payment"))
    message = kind(**values)
    if at_us is not None:
        message.at.seconds, message.at.nanos = at_us // 1_000_000, at_us % 1_000_000 * 1_000
    return b"\0" + struct.pack(">I", number) + b"\0" + bytes(message.SerializeToString())
