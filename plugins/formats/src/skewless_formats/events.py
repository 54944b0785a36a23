"""Reads events in a format with a schema registry: from the bytes of a message to the columns of its source."""

from __future__ import annotations

import time
from collections import OrderedDict

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.avro import ReadBody, Values, compile_avro
from skewless_formats.frame import parse_frame, split_indexes
from skewless_formats.json_schema import check_properties, compile_json
from skewless_formats.protobuf import compile_protobuf
from skewless_formats.registry import RegisteredSchema, SchemaRegistry

_KINDS: dict[str, str] = {"avro": "AVRO", "protobuf": "PROTOBUF", "json-schema": "JSON"}
_MOST_READERS = 1_000
_PROBLEM_S = 60.0  # the latest schema may repair it
_Place = tuple[int, tuple[int, ...] | None]


class RegistryReader:
    """Reads the events of a source; used from one thread.

    Args:
        source: of the events; its format is not plain JSON.
        registry: has the schemas.
    """

    def __init__(self, source: EventSource, registry: SchemaRegistry) -> None:
        self._source, self._registry = source, registry
        self._columns = (*source.columns, Column(name=source.event_column, dtype=DType.TIMESTAMP))
        self._readers: OrderedDict[_Place, ReadBody] = OrderedDict()
        self._problems: dict[_Place, tuple[float, str]] = {}

    def read(self, payload: bytes) -> Values:
        """Return the columns of an event.

        Raises:
            PayloadError: the event cannot be read; the text has the reason.
            StoreError: the registry is unavailable, so that it is unknown whether the event can be read.
        """
        schema_id, body = parse_frame(payload)
        indexes = None
        if self._source.format == "protobuf":
            indexes, body = split_indexes(body)
        place = schema_id, indexes
        read_body = self._readers.get(place)
        if read_body is None:
            read_body = self._open(place)
        return read_body(body)

    def check_latest(self) -> None:
        """Check that events of the latest schema can be read.

        Raises:
            DefinitionError: the subject has no schema, or the source's columns cannot be read from it.
            StoreError: the registry is unavailable.
        """
        thing = f"event source {self._source.name!r}"
        try:
            schema = self._registry.latest(self._source.registry_subject)
            if schema is None:
                raise DefinitionError(
                    thing,
                    "has no schema in the registry",
                    value=self._source.registry_subject,
                    fix="register one, or correct the source's subject",
                )
            self._compile(schema.id, schema, None)
            if self._source.format == "json-schema":
                check_properties(schema, self._columns)
        except PayloadError as error:
            raise DefinitionError(
                thing,
                f"cannot be read with its latest schema: {error}",
                fix="correct the source's columns, or register a schema that has them",
            ) from None

    def _open(self, place: _Place) -> ReadBody:
        at, problem = self._problems.get(place, (0.0, ""))
        if problem and time.monotonic() - at < _PROBLEM_S:
            raise PayloadError(problem)
        schema_id, indexes = place
        try:
            read_body = self._compile(schema_id, self._registry.schema(schema_id), indexes)
        except PayloadError as error:
            if len(self._problems) >= _MOST_READERS:
                self._problems.clear()
            self._problems[place] = time.monotonic(), str(error)
            raise
        self._readers[place] = read_body
        if len(self._readers) > _MOST_READERS:
            self._readers.popitem(last=False)
        return read_body

    def _compile(self, schema_id: int, schema: RegisteredSchema | None, indexes: tuple[int, ...] | None) -> ReadBody:
        source = self._source
        if schema is None:
            raise PayloadError(f"schema {schema_id} is not in the registry")
        if schema.kind != _KINDS[source.format]:
            raise PayloadError(f"schema {schema.id} is {schema.kind}, and the source declares {source.format}")
        if source.format == "protobuf":
            return compile_protobuf(schema, indexes, source.message, self._columns, self._latest)
        if source.format == "json-schema":
            return compile_json(schema)
        return compile_avro(schema, self._columns, self._latest)

    def _latest(self) -> RegisteredSchema | None:
        latest = self._registry.latest(self._source.registry_subject)
        return latest if latest is not None and latest.kind == _KINDS[self._source.format] else None
