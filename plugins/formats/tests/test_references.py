"""Avro schemas that reference other subjects of the registry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skewless.contract.errors import DefinitionError
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.log.log_columns import REJECT
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.events import RegistryReader
from skewless_formats.registry import SchemaRegistry
from tests.servers.registry import Registry
from tests.worlds.formats import AVRO, avro_message, avro_schema
from tests.worlds.streams import BASE

RECORD = {"card": 7, "amount": 1.5, "shop": "a", "online": True, "at": BASE}
SUBJECT = "payments-value"


SHOP: dict[str, Any] = {"type": "enum", "name": "Shop", "namespace": "world", "symbols": ["a", "b"]}
PLACE: dict[str, Any] = {
    "type": "record",
    "name": "Place",
    "namespace": "world",
    "fields": [{"name": "shop", "type": "Shop"}, {"name": "x", "type": "double"}],
}


def refer(name: str, subject: str, version: int = 1) -> dict[str, Any]:
    return {"name": name, "subject": subject, "version": version}


def test_types_of_other_subjects_are_resolved(schemas: Registry) -> None:
    """One is referenced by the other, too; the latest schema, which gives a default, may have references as well."""
    schemas.add("shop", "AVRO", json.dumps(SHOP))
    schemas.add("place", "AVRO", json.dumps(PLACE), [refer("world.Shop", "shop")])
    references = [refer("world.Place", "place"), refer("world.Shop", "shop")]
    schema = avro_schema(first={"type": ["null", "world.Place"]}, shop={"type": "world.Shop"})
    number = schemas.add(SUBJECT, "AVRO", json.dumps(schema), references)
    reader = RegistryReader(AVRO, SchemaRegistry(schemas.url))
    for first in (None, {"shop": "b", "x": 1.0}):
        assert reader.read(avro_message(number, schema, RECORD | {"first": first}, SHOP, PLACE)) == RECORD
    assert schemas.requests.count("GET /subjects/shop/versions/1") == 1
    reader.check_latest()
    schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(shop={"type": "world.Shop", "default": "b"})), references)
    older = {name: value for name, value in RECORD.items() if name != "shop"}
    number = schemas.add("older", "AVRO", json.dumps(avro_schema(shop=None)))
    assert reader.read(avro_message(number, avro_schema(shop=None), older))["shop"] == "b"
    wrong = schemas.add("wrong", "AVRO", json.dumps(avro_schema(shop={"type": "world.Place"})), references)
    with pytest.raises(PayloadError, match="has the type 'record' in the field 'shop'"):
        reader.read(avro_message(wrong, avro_schema(), RECORD))


@pytest.mark.parametrize(
    ("kind", "references", "reason"),
    [
        ("AVRO", [], "schema 4 has the type 'world.Shop' in the field 'shop', which cannot be read as string"),
        ("AVRO", [refer("world.Shop", "nowhere")], "references a schema that the registry does not have"),
        ("AVRO", [refer("world.Shop", "ring")], "has references that lead back to themselves"),
        ("AVRO", [refer("world.Shop", "shop"), refer("world.Shop", "other")], "references two schemas by one name"),
        ("AVRO", [{"name": "world.Shop", "subject": "shop"}], "has a reference without name, subject and version"),
        ("JSON", [], "schema 4 is JSON, and the source declares avro"),
        ("XML", [], "schema 4 is of an unknown kind, and the source declares avro"),
    ],
)
def test_a_schema_that_cannot_be_resolved_stops_no_other_event(
    schemas: Registry, kind: str, references: list[dict[str, Any]], reason: str
) -> None:
    good = schemas.add("good", "AVRO", json.dumps(avro_schema()))
    schemas.add("ring", "AVRO", json.dumps(PLACE), [refer("world.Place", "ring")])
    schemas.add("shop", "AVRO", json.dumps(SHOP))
    schema = avro_schema(shop={"type": "world.Shop"})
    bad = schemas.add(SUBJECT, kind, json.dumps(schema), references)
    messages = [avro_message(number, avro_schema(), RECORD) for number in (bad, good)]
    decoder = Decoder(AVRO, [], 1_000, RegistryReader(AVRO, SchemaRegistry(schemas.url)))
    refused, accepted = decoder.decode(messages, range(2), BASE)[REJECT].to_pylist()
    assert reason in refused
    assert accepted is None
    with pytest.raises(DefinitionError, match="cannot be read with its latest schema"):
        RegistryReader(AVRO, SchemaRegistry(schemas.url)).check_latest()
