"""Schemas of records that we write: from Arrow's types to those of Avro and Protobuf."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from skewless_formats.packages import import_format

_TYPES: Mapping[pa.DataType, tuple[Any, str]] = {  # in Avro and in Protobuf
    pa.string(): ("string", "string"),
    pa.float64(): ("double", "double"),
    pa.int64(): ("long", "int64"),
    pa.timestamp("us", tz="UTC"): ({"type": "long", "logicalType": "timestamp-micros"}, "int64"),
    pa.bool_(): ("boolean", "bool"),
}


def describe_avro(name: str, schema: pa.Schema, optional: Collection[str]) -> Mapping[str, Any]:
    """Return the Avro schema of a record."""
    fields = []
    for field in schema:
        is_list = pa.types.is_list(field.type)
        kind, _ = _TYPES[field.type.value_type if is_list else field.type]
        kind = {"type": "array", "items": kind} if is_list else kind
        if field.name in optional:
            fields.append({"name": field.name, "type": ["null", kind], "default": None})
        else:
            fields.append({"name": field.name, "type": kind, **({"default": []} if is_list else {})})
    return {"type": "record", "name": name, "namespace": "skewless", "fields": fields}


def describe_protobuf(name: str, schema: pa.Schema, optional: Collection[str]) -> Any:  # noqa: ANN401 - an optional dependency
    """Return the file of a message as a FileDescriptorProto; times are microseconds.

    The place of a field is its number, which is never given to another one.
    """
    descriptor_pb2 = import_format("protobuf")
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"skewless/{name.lower()}.proto", package="skewless", syntax="proto3"
    )
    message = file.message_type.add(name=name)
    for number, declared in enumerate(schema, 1):
        is_list = pa.types.is_list(declared.type)
        _, kind = _TYPES[declared.type.value_type if is_list else declared.type]
        label = kinds.LABEL_REPEATED if is_list else kinds.LABEL_OPTIONAL
        kind_number = getattr(kinds, f"TYPE_{kind.upper()}")
        field = message.field.add(name=declared.name, number=number, label=label, type=kind_number)
        if declared.name in optional and not is_list:
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{declared.name}")
    return file
