"""The port of codecs: how events are read in a format other than JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.host.plugins import require_plugin


class PayloadError(ValueError):
    """A message cannot be read; the text says why, and has no value of the message."""


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


class EventCodec(Protocol):
    """A format of events, an entry point of ``skewless.codecs`` under its name."""

    def open_reader(self, source: EventSource, settings: Settings) -> EventReader:
        """Return a reader of a source's messages; it holds no resources.

        Raises:
            DefinitionError: a setting or a package is missing.
        """
        ...


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
