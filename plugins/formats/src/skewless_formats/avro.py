"""Avro: reads events with the schema of their writer, and writes records of one schema.

A field counts if the writer's schema has it. If it has not, the subject's latest schema decides as Avro's schema
resolution does: an alias, else the default. Otherwise the event cannot be read: no value is guessed.
https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.packages import import_format
from skewless_formats.registry import RegisteredSchema, SchemaKind

Values = dict[str, Any]
ReadBody = Callable[[bytes], Values]
_MOST_NODES, _MOST_DEPTH = 10_000, 32
_CONTAINERS = {"array": "items", "map": "values"}
# The errors of fastavro's reader for bytes that are not of the schema.
_ERRORS = (EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, StopIteration, struct.error)
_ACCEPTED: Mapping[DType, frozenset[str]] = {
    DType.INT32: frozenset({"int"}),
    DType.INT64: frozenset({"int", "long"}),
    DType.FLOAT32: frozenset({"float"}),
    DType.FLOAT64: frozenset({"int", "long", "float", "double"}),
    DType.BOOL: frozenset({"boolean"}),
    DType.STRING: frozenset({"string", "enum"}),
    # Text in ISO 8601. A long without a logical type has no unit.
    DType.TIMESTAMP: frozenset({"string", "timestamp-millis", "timestamp-micros", "timestamp-nanos"}),
}
_TO_MICROSECONDS: Mapping[str, Callable[[int], int]] = {
    "timestamp-millis": lambda value: value * 1_000,
    "timestamp-nanos": lambda value: value // 1_000,
}


class _Shape(NamedTuple):
    """Size of a type: the fewest bytes of a value, and the number of its parts that a reader visits."""

    least_bytes: int
    nodes: int


class _ColumnSource(NamedTuple):
    """Where the values of a column come from: a field of the writer, or else a constant."""

    column: str
    field: str | None
    default: Any
    convert: Callable[[int], int] | None


class _Record(NamedTuple):
    """The schema of a record, and the kinds of its named types, by the names that its fields use.

    Args:
        references: the schemas whose types it uses, in an order in which each can be parsed.
    """

    schema: Mapping[str, Any]
    references: Sequence[Any]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, name: str, registered: RegisteredSchema) -> _Record:
        """Parse a schema; raise PayloadError if its values cannot be read, or have no bound."""
        references = [parse_json(name, text) for _, text in registered.references]
        schema = parse_json(name, registered.text)
        if not isinstance(schema, dict) or schema.get("type") != "record" or not isinstance(schema.get("fields"), list):
            raise PayloadError(f"{name} is not a record")
        if not all(isinstance(field, dict) and {"name", "type"} <= field.keys() for field in schema["fields"]):
            raise PayloadError(f"{name} has a field without name and type")
        shapes, inner = _Shapes(name), f"{_space_of(schema, '')}."
        for each in (*references, schema):
            shapes.measure(each)
        # A name without dots is first looked up in the record's own namespace.
        own = {full.removeprefix(inner): kind for full, kind in shapes.kinds.items() if full.startswith(inner)}
        return cls(schema, references, shapes.kinds | own)


def compile_avro(
    registered: RegisteredSchema, columns: Sequence[Column], latest: Callable[[], RegisteredSchema | None]
) -> ReadBody:
    """Return a function from the binary of an event to its columns.

    Args:
        registered: the writer's schema.
        columns: to read.
        latest: returns the subject's latest schema; called if the writer's schema lacks a column.

    Raises:
        PayloadError: no event of the schema can be read.
        DefinitionError: fastavro is not installed.
    """
    fastavro, name = import_format("avro"), f"schema {registered.id}"
    record = _Record.of(name, registered)
    fields = [_find_field(name, column, record, latest) for column in columns]
    named: dict[str, Any] = {}
    try:
        for reference in record.references:
            fastavro.parse_schema(_strip(reference), named)
        parsed = fastavro.parse_schema(_strip(record.schema), named)
    except Exception as error:  # noqa: BLE001 - a schema that is not valid raises many kinds of errors
        raise PayloadError(f"{name} is not a valid Avro schema: {type(error).__name__}") from None
    read = fastavro.schemaless_reader

    def read_body(body: bytes) -> Values:
        stream = io.BytesIO(body)
        try:
            event: Any = read(stream, parsed, None)
        except _ERRORS:
            raise PayloadError(f"the message is not Avro of {name}") from None
        if stream.tell() != len(body):
            raise PayloadError(f"the message has bytes after its record of {name}")
        values = {}
        for column, field, default, convert in fields:
            value = default if field is None else event[field]
            values[column] = value if convert is None or value is None else convert(value)
        return values

    return read_body


class AvroWriter:
    """Writes records of one schema, always as the same bytes.

    Raises:
        DefinitionError: fastavro is not installed.
    """

    kind: SchemaKind = "AVRO"
    head = b""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        fastavro = import_format("avro")
        self.text = json.dumps(schema, separators=(",", ":"))
        self._parsed = fastavro.parse_schema(json.loads(self.text))
        self._write = fastavro.schemaless_writer

    def write(self, record: Mapping[str, Any]) -> bytes:
        """Return the binary of a record."""
        stream = io.BytesIO()
        self._write(stream, self._parsed, record)
        return stream.getvalue()


def parse_json(name: str, text: str) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON of a schema; raise PayloadError if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PayloadError(f"{name} is not JSON") from None


def _find_field(
    name: str, column: Column, record: _Record, latest: Callable[[], RegisteredSchema | None]
) -> _ColumnSource:
    fields = {field["name"]: field for field in record.schema["fields"]}
    known = column.name if column.name in fields else None
    if known is None and (registered := latest()) is not None:
        newer = _Record.of("the latest schema", registered)
        field: Mapping[str, Any] = next((each for each in newer.schema["fields"] if each["name"] == column.name), {})
        known = next((alias for alias in field.get("aliases", ()) if alias in fields), None)
        if known is None and "default" in field:
            convert = _choose_conversion("the latest schema", column, field, newer.kinds)
            return _ColumnSource(column.name, None, field["default"], convert)
    if known is None:
        raise PayloadError(f"{name} lacks the field {column.name!r}")
    return _ColumnSource(column.name, known, None, _choose_conversion(name, column, fields[known], record.kinds))


def _choose_conversion(
    name: str, column: Column, field: Mapping[str, Any], kinds: Mapping[str, str]
) -> Callable[[int], int] | None:
    kind = _type_name(field["type"])
    kind = kinds.get(kind, kind)  # of a type that is defined elsewhere in the schema
    if kind not in _ACCEPTED[column.dtype]:
        raise PayloadError(
            f"{name} has the type {kind!r} in the field {column.name!r}, which cannot be read as {column.dtype.value}"
        )
    return _TO_MICROSECONDS.get(kind)


def _type_name(schema: object) -> str:
    """Return the type of a field in a word, without null.

    >>> _type_name(["null", {"type": "long", "logicalType": "timestamp-micros"}]), _type_name(["int", "string"])
    ('timestamp-micros', 'union')
    """
    if isinstance(schema, list):
        others = [item for item in schema if item != "null"]
        return _type_name(others[0]) if len(others) == 1 else "union"
    if isinstance(schema, dict):
        inner = schema.get("type")
        return str(schema.get("logicalType", inner if isinstance(inner, str) else _type_name(inner)))
    return str(schema)


def _strip(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema without logical types, so that values stay numbers, and without marks of the library."""
    if isinstance(schema, dict):
        omitted = {"logicalType", "default", "__fastavro_parsed", "__named_schemas"}
        return {key: _strip(value) for key, value in schema.items() if key not in omitted}
    return [_strip(item) for item in schema] if isinstance(schema, list) else schema


class _Shapes:
    """Measures schemas, and refuses those whose values can be far larger than their bytes.

    Attributes:
        kinds: ``record``, ``enum`` or ``fixed`` by the full name of each named type.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.kinds: dict[str, str] = {}
        self._named: dict[str, _Shape | None] = {}

    def measure(self, schema: Any, space: str = "", depth: int = 0) -> _Shape:  # noqa: ANN401 - JSON
        """Return the shape of a type.

        Raises:
            PayloadError: a type contains itself, or is too large.
        """
        if depth > _MOST_DEPTH:
            raise PayloadError(f"{self._name} is nested too deeply")
        shape = self._measure(schema, space, depth)
        if shape.nodes > _MOST_NODES:
            raise PayloadError(f"{self._name} has more than {_MOST_NODES} fields")
        return shape

    def _measure(self, schema: Any, space: str, depth: int) -> _Shape:  # noqa: ANN401 - JSON
        if isinstance(schema, str):
            return self._measure_word(schema, space)
        if isinstance(schema, list):
            shapes = [self.measure(item, space, depth + 1) for item in schema]
            least = min((shape.least_bytes for shape in shapes), default=0)
            return _Shape(1 + least, 1 + sum(shape.nodes for shape in shapes))
        if not isinstance(schema, dict):
            raise PayloadError(f"{self._name} is not a valid Avro schema")
        kind = schema.get("type")
        if kind == "record":
            return self._measure_record(schema, space, depth)
        if kind in _CONTAINERS:
            items = self.measure(schema.get(_CONTAINERS[kind]), space, depth + 1)
            if kind == "array" and items.least_bytes == 0:
                raise PayloadError(f"{self._name} has an array whose items have no bytes")
            return _Shape(1, 1 + items.nodes)
        if kind in {"enum", "fixed"}:
            size = schema.get("size", 0) if kind == "fixed" else 1
            return self._note(schema, space, _Shape(size if isinstance(size, int) and size > 0 else 0, 1))
        return self.measure(kind, space, depth + 1)

    def _measure_word(self, word: str, space: str) -> _Shape:
        for name in (f"{space}.{word}" if space and "." not in word else word, word):
            if name in self._named:
                shape = self._named[name]
                if shape is None:
                    raise PayloadError(f"{self._name} has a type that contains itself")
                return shape
        return _Shape({"null": 0, "float": 4, "double": 8}.get(word, 1), 1)

    def _measure_record(self, schema: Mapping[str, Any], space: str, depth: int) -> _Shape:
        fields = schema.get("fields")
        if not isinstance(fields, list) or not all(isinstance(field, dict) for field in fields):
            raise PayloadError(f"{self._name} is not a valid Avro schema")
        inner = _space_of(schema, space)
        self._named[_full_name(schema, space)] = None  # until its size is known
        least, nodes = 0, 1
        for field in fields:
            shape = self.measure(field.get("type"), inner, depth + 1)
            least, nodes = least + shape.least_bytes, nodes + shape.nodes
        return self._note(schema, space, _Shape(least, nodes))

    def _note(self, schema: Mapping[str, Any], space: str, shape: _Shape) -> _Shape:
        full_name = _full_name(schema, space)
        self._named[full_name], self.kinds[full_name] = shape, str(schema.get("type"))
        return shape


def _full_name(schema: Mapping[str, Any], space: str) -> str:
    name, space = str(schema.get("name", "")), str(schema.get("namespace", space))
    return f"{space}.{name}" if space and "." not in name else name


def _space_of(schema: Mapping[str, Any], space: str) -> str:
    return _full_name(schema, space).rpartition(".")[0]
