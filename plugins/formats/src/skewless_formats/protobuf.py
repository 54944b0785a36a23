"""Protobuf: reads events with the descriptor of their writer, and writes messages of one descriptor.

A field counts if the writer's message has it; absent, it is null with presence (``optional``) and the default without,
as Protobuf defines. A field that only the subject's latest descriptor has is absent. Otherwise the event cannot be
read: no value is guessed. https://protobuf.dev/programming-guides/field_presence/
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.avro import ReadBody, Values
from skewless_formats.packages import import_format
from skewless_formats.registry import RegisteredSchema, SchemaKind

_MOST_FIELDS = 10_000
_GOOGLE = re.compile(r"google/protobuf/([a-z]{1,30}(_[a-z]{1,30})?)\.proto")
_NAMES = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool", 9: "string",
    10: "group", 11: "message", 12: "bytes", 13: "uint32", 14: "enum", 15: "sfixed32", 16: "sfixed64", 17: "sint32",
    18: "sint64",
}  # fmt: skip
_INT32 = frozenset({"int32", "sint32", "sfixed32"})
_UINT32 = frozenset({"uint32", "fixed32"})
# An unsigned number that is too large for the column is found in its event.
_INT64 = frozenset({"int64", "sint64", "sfixed64", "uint64", "fixed64"})
_ACCEPTED: Mapping[DType, frozenset[str]] = {
    DType.INT32: _INT32,
    DType.INT64: _INT32 | _UINT32 | _INT64,
    DType.FLOAT32: frozenset({"float"}),
    DType.FLOAT64: frozenset({"float", "double"}) | _INT32 | _UINT32 | _INT64,
    DType.BOOL: frozenset({"bool"}),
    DType.STRING: frozenset({"string", "enum"}),
    # Text in ISO 8601. A number has no unit.
    DType.TIMESTAMP: frozenset({"string", "google.protobuf.Timestamp"}),
}
_WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
}
_NANOSECONDS = range(1_000_000_000)


def compile_protobuf(
    schema: RegisteredSchema,
    indexes: tuple[int, ...] | None,
    message: str,
    columns: Sequence[Column],
    latest: Callable[[], RegisteredSchema | None],
) -> ReadBody:
    """Return a function from the binary of an event to its columns.

    Args:
        schema: of the writer.
        indexes: place of the event's message in its file; None: that of ``message``.
        message: full name of the expected message; empty: the first of the file.
        columns: to read.
        latest: returns the subject's latest schema; called if the writer's message lacks a column.

    Raises:
        PayloadError: no event of the schema can be read.
        DefinitionError: protobuf is not installed.
    """
    import_format("protobuf")
    from google.protobuf import message_factory  # noqa: PLC0415 - an optional dependency
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    name = f"schema {schema.id}"
    descriptor = find_message(schema, indexes, message)
    kind: Any = message_factory.GetMessageClass(descriptor)
    readers = {column.name: _find_reader(name, column, descriptor, message, latest) for column in columns}

    def read_body(body: bytes) -> Values:
        try:
            event = kind.FromString(body)
        except DecodeError:
            raise PayloadError(f"the message is not Protobuf of {name}") from None
        if not event.IsInitialized():
            raise PayloadError(f"the message lacks a required field of {name}")
        return {column: read(event) for column, read in readers.items()}

    return read_body


def find_message(schema: RegisteredSchema, indexes: tuple[int, ...] | None, message: str) -> Any:  # noqa: ANN401 - an optional dependency
    """Return the descriptor of a message in a schema; the arguments are those of ``compile_protobuf``."""
    descriptor_pb2 = import_format("protobuf")
    from google.protobuf import descriptor_pool  # noqa: PLC0415 - an optional dependency

    name = f"schema {schema.id}"
    pool = descriptor_pool.DescriptorPool()
    file = _parse_file(descriptor_pb2, name, schema.text)
    try:
        for path, text in schema.references:
            reference = _parse_file(descriptor_pb2, name, text)
            reference.name = path
            _add_file(pool, reference)
        file.name = f"{name}.proto"
        _add_file(pool, file)
        found = _full_name(file, indexes) if indexes is not None else message or _full_name(file, (0,))
        expected = message or _full_name(file, (0,))
        if found != expected:
            raise PayloadError(f"the message is a {found!r}, and the source declares {expected!r}")
        return pool.FindMessageTypeByName(found)
    except (TypeError, KeyError, IndexError, ImportError):
        raise PayloadError(f"{name} is not a valid Protobuf file with the message {message or 'first'!r}") from None


class ProtobufWriter:
    """Writes messages of one descriptor, always as the same bytes.

    Args:
        file: a FileDescriptorProto; its first message is written.
    """

    kind: SchemaKind = "PROTOBUF"
    head = b"\0"  # the place of the first message of a file

    def __init__(self, file: Any) -> None:  # noqa: ANN401 - an optional dependency
        from google.protobuf import message_factory  # noqa: PLC0415 - as above

        self.text = base64.b64encode(file.SerializeToString(deterministic=True)).decode()
        schema = RegisteredSchema(id=0, kind="PROTOBUF", text=self.text)
        self._kind: Any = message_factory.GetMessageClass(find_message(schema, None, ""))

    def write(self, values: Mapping[str, Any]) -> bytes:
        """Return the binary of a message; a value of None is absent."""
        message = self._kind(**{name: value for name, value in values.items() if value is not None})
        return bytes(message.SerializeToString(deterministic=True))


def _parse_file(descriptor_pb2: Any, name: str, text: str) -> Any:  # noqa: ANN401 - as above
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (DecodeError, binascii.Error, ValueError):
        raise PayloadError(f"{name} is not a serialized Protobuf file, which the registry was asked for") from None
    if sum(len(message.field) for message in file.message_type) > _MOST_FIELDS:
        raise PayloadError(f"{name} has more than {_MOST_FIELDS} fields")
    return file


def _add_file(pool: Any, file: Any) -> None:  # noqa: ANN401 - as above
    for path in file.dependency:
        if known := _GOOGLE.fullmatch(path):
            module: Any = import_module(f"google.protobuf.{known[1]}_pb2")
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())


def _full_name(file: Any, indexes: tuple[int, ...]) -> str:  # noqa: ANN401 - as above
    message = file.message_type[indexes[0]]
    names = [file.package, message.name] if file.package else [message.name]
    for index in indexes[1:]:
        message = message.nested_type[index]
        names.append(message.name)
    return ".".join(names)


def _find_reader(
    name: str,
    column: Column,
    descriptor: Any,  # noqa: ANN401 - as above
    message: str,
    latest: Callable[[], RegisteredSchema | None],
) -> Callable[[Any], Any]:
    field = descriptor.fields_by_name.get(column.name)
    if field is not None:
        return _reader(name, column, field)
    newer = latest()
    if newer is not None and newer.kind == "PROTOBUF":
        field = find_message(newer, None, message).fields_by_name.get(column.name)
        if field is not None:
            _reader("the latest schema", column, field)
            default = None if field.has_presence else field.default_value
            return lambda _event: default
    raise PayloadError(f"{name} lacks the field {column.name!r}")


def _reader(name: str, column: Column, field: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - as above
    """Return a function from a message to the value of a field."""
    place = field.name
    kind = _NAMES.get(field.type, "unknown")
    is_wrapped = kind == "message" and field.message_type.full_name in _WRAPPERS
    if is_wrapped:
        kind = _NAMES[field.message_type.fields_by_name["value"].type]
    elif kind == "message":
        kind = field.message_type.full_name
    if field.is_repeated or kind not in _ACCEPTED[column.dtype]:
        kind = f"repeated {kind}" if field.is_repeated else kind
        raise PayloadError(
            f"{name} has the type {kind!r} in the field {column.name!r}, which cannot be read as {column.dtype.value}"
        )
    convert = _choose_conversion(kind, is_wrapped=is_wrapped, field=field)
    if field.has_presence:
        return lambda event: convert(getattr(event, place)) if event.HasField(place) else None
    return lambda event: convert(getattr(event, place))


def _choose_conversion(kind: str, *, is_wrapped: bool, field: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - as above
    if is_wrapped:
        return lambda value: value.value
    if kind == "google.protobuf.Timestamp":
        return _to_microseconds
    if kind == "enum":
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: _find_name(names, number, field.name)
    return lambda value: value


def _to_microseconds(timestamp: Any) -> int:  # noqa: ANN401 - as above
    if timestamp.nanos not in _NANOSECONDS:
        raise PayloadError("a timestamp has nanoseconds out of range")
    return int(timestamp.seconds * 1_000_000 + timestamp.nanos // 1_000)


def _find_name(names: Mapping[int, str], number: int, field: str) -> str:
    if number not in names:
        raise PayloadError(f"the field {field!r} has a number that is not in its enum")
    return names[number]
