"""The check of each run of `make test`: an event of each format is read through the port of codecs."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoints

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.formats.codec import check_formats, open_event_reader
from tests.servers.registry import Registry
from tests.worlds.formats import (
    AVRO,
    JSON_SCHEMA,
    PROTO_FIELDS,
    PROTOBUF,
    avro_message,
    avro_schema,
    json_message,
    json_schema,
    proto_file,
    proto_message,
    proto_text,
)
from tests.worlds.streams import BASE

RECORD = {"card": 7, "amount": 1.5, "shop": "a", "online": True, "at": BASE}


@pytest.mark.parametrize("source", [AVRO, PROTOBUF, JSON_SCHEMA], ids=lambda source: source.format)
def test_an_event_is_read_with_the_schema_of_its_registry(schemas: Registry, source: EventSource) -> None:
    if source is AVRO:
        number = schemas.add(source.registry_subject, "AVRO", json.dumps(avro_schema()))
        message = avro_message(number, avro_schema(), RECORD)
    elif source is JSON_SCHEMA:
        number = schemas.add(source.registry_subject, "JSON", json.dumps(json_schema()))
        message = json_message(number, RECORD)
    else:
        file = proto_file()
        number = schemas.add(source.registry_subject, "PROTOBUF", proto_text(file))
        message = proto_message(number, file, {name: RECORD[name] for name in PROTO_FIELDS})
    settings = Settings(schema_registry=schemas.url)
    check_formats([source], settings)
    reader = open_event_reader(source, settings)
    assert reader is not None
    assert reader.read(message) == RECORD


def test_a_format_that_is_not_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.platform.host.plugins._entry_points", lambda *_: EntryPoints())
    with pytest.raises(DefinitionError, match=r"'avro': is not installed.*pip install 'skewless\[avro\]'"):
        open_event_reader(AVRO, Settings())
