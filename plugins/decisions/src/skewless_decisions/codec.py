"""The port of codecs of decisions, and the schema registry's wire format, in which decisions are sent."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Any, Protocol, cast

import pyarrow as pa

from skewless.contract.settings import Settings
from skewless.contract.sinks import MessageFormat
from skewless.infra.platform.formats.codec import EventCodec
from skewless.infra.platform.host.plugins import require_plugin

_HEAD = struct.Struct(">bI")


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


class Codec(EventCodec, Protocol):
    """A format of events and of decisions, an entry point `skewless.codecs` under its name."""

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


def add_frame(schema_id: int, body: bytes) -> bytes:
    r"""Return a message in the wire format.

    >>> add_frame(258, b"a")
    b'\x00\x00\x00\x01\x02a'
    """
    return _HEAD.pack(0, schema_id) + body
