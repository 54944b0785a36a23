"""The port of codecs: how events and decisions are read and written in a format other than JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, cast

import pyarrow as pa

from skewless.contract.settings import Settings
from skewless.contract.sinks import MessageFormat
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.host.plugins import require_plugin


class EventReader(Protocol):
    """Reads the events of a source; used from one thread, which it may block while it reads a schema."""

    def read(self, payload: bytes) -> dict[str, Any]:
        """Return the columns of an event, and its time, as JSON would have them.

        Raises:
            PayloadError: the event cannot be read; the text has the reason, and no value of the event.
            StoreError: a schema is unavailable, so that it is unknown whether the event can be read.
        """
        ...

    def check_latest(self) -> None:
        """Check that events of the latest schema can be read.

        Raises:
            DefinitionError: there is no schema, or the source's columns cannot be read from it.
            StoreError: the schema is unavailable.
        """
        ...


class RecordWriter(Protocol):
    """Writes records of one schema, always as the same bytes.

    Attributes:
        kind: of the schema, as the registry names it.
        text: of the schema.
        head: bytes in front of each record.
    """

    kind: Any
    text: str
    head: bytes

    def write(self, record: Mapping[str, Any], /) -> bytes:
        """Return the bytes of a record; a value of None is absent."""
        ...


class EventCodec(Protocol):
    """A format of events, an entry point of ``skewless.codecs`` under its name."""

    def open_reader(self, source: EventSource, settings: Settings) -> EventReader:
        """Return a reader of a source's messages; it holds no resources.

        Raises:
            DefinitionError: a setting or a package is missing.
        """
        ...


class Codec(EventCodec, Protocol):
    """A format of events and of decisions, an entry point as above."""

    def open_writer(self, name: str, fields: pa.Schema, optional: Collection[str]) -> RecordWriter:
        """Return a writer of records.

        Args:
            name: of the record.
            fields: of text, numbers, times, truth values or lists of them; new ones come last.
            optional: names of the fields that may be absent.

        Raises:
            DefinitionError: a package is missing.
        """
        ...

    def register(self, writer: RecordWriter, subject: str, settings: Settings, thing: str) -> int:
        """Register the schema of a writer in a subject, unless it is there already; return its id.

        Args:
            thing: what needs it, for errors.

        Raises:
            DefinitionError: there is no registry, or it refuses the schema.
            StoreError: the registry is unavailable.
        """
        ...


def require_codec(name: MessageFormat) -> Codec:
    """Return the codec of a format of decisions.

    Raises:
        DefinitionError: it is not installed.
    """
    return cast("Codec", require_plugin("skewless.codecs", name))


def open_event_reader(source: EventSource, settings: Settings) -> EventReader | None:
    """Return a reader of a source's messages; None: they are JSON.

    Raises:
        DefinitionError: the source needs the schema registry or a package, and there is none.
    """
    if source.format == "json":
        return None
    codec = cast("EventCodec", require_plugin("skewless.codecs", source.format))
    return codec.open_reader(source, settings)


def check_formats(sources: Sequence[EventSource], settings: Settings) -> None:
    """Check that events of the registry's latest schemas can be read.

    Raises:
        DefinitionError: those of a source cannot be read.
        StoreError: the registry is unavailable.
    """
    for source in sources:
        reader = open_event_reader(source, settings)
        if reader is not None:
            reader.check_latest()
