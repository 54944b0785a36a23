"""The codecs of Avro, Protobuf and JSON Schema, as the port of the core wants them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventFormat, EventSource
from skewless_formats.avro import AvroWriter
from skewless_formats.events import RegistryReader
from skewless_formats.packages import import_format
from skewless_formats.protobuf import ProtobufWriter
from skewless_formats.records import describe_avro, describe_protobuf
from skewless_formats.registry import open_registry


@dataclass(frozen=True)
class RegistryEventCodec:
    """A format of events whose schemas are in a schema registry; see ``EventCodec`` of the core."""

    name: EventFormat

    def open_reader(self, source: EventSource, settings: Settings) -> RegistryReader:
        """Return a reader of a source's messages."""
        registry = open_registry(settings, f"event source {source.name!r}", self.name)
        import_format(self.name)
        return RegistryReader(source, registry)


class RegistryCodec(RegistryEventCodec):
    """A format of events and decisions; see ``Codec`` of the plug-in `decisions`."""

    def open_writer(self, name: str, fields: pa.Schema, optional: Collection[str]) -> AvroWriter | ProtobufWriter:
        """Return a writer of records."""
        if self.name == "avro":
            return AvroWriter(describe_avro(name, fields, optional))
        return ProtobufWriter(describe_protobuf(name, fields, optional))

    def register(self, writer: AvroWriter | ProtobufWriter, subject: str, settings: Settings, thing: str) -> int:
        """Register the schema of a writer; return its id."""
        return open_registry(settings, thing, self.name).register(subject, writer.kind, writer.text)


AVRO, PROTOBUF, JSON_SCHEMA = RegistryCodec("avro"), RegistryCodec("protobuf"), RegistryEventCodec("json-schema")
