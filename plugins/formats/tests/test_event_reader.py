"""Events in Avro and Protobuf: what is read, and what is refused with a reason and never guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.log.log_columns import RAW, REJECT
from skewless.infra.platform.formats.codec import PayloadError, check_formats
from skewless_formats.events import RegistryReader
from skewless_formats.registry import SchemaRegistry
from tests.servers.registry import Registry
from tests.worlds.formats import (
    AVRO,
    MICROSECONDS,
    PROTO_FIELDS,
    PROTOBUF,
    TYPES,
    avro_message,
    avro_schema,
    proto_file,
    proto_message,
    proto_text,
)
from tests.worlds.streams import BASE

RECORD = {"card": 7, "amount": 1.5, "shop": "a", "online": True, "at": BASE}
SUBJECT = "payments-value"


def avro_values(schemas: Registry, schema: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Read a record of a schema that is not the latest, if there is one."""
    number = schemas.add(SUBJECT if SUBJECT not in schemas.subjects else "older", "AVRO", json.dumps(schema))
    return RegistryReader(AVRO, SchemaRegistry(schemas.url)).read(avro_message(number, schema, record))


def proto_values(
    schemas: Registry,
    file: Any,  # noqa: ANN401 - generated
    values: dict[str, Any],
    source: EventSource = PROTOBUF,
) -> dict[str, Any]:
    number = schemas.add(SUBJECT if SUBJECT not in schemas.subjects else "older", "PROTOBUF", proto_text(file))
    return RegistryReader(source, SchemaRegistry(schemas.url)).read(proto_message(number, file, values))


def test_avro_is_read_with_the_schema_of_its_writer(schemas: Registry) -> None:
    assert avro_values(schemas, avro_schema(), RECORD) == RECORD
    assert avro_values(schemas, avro_schema(), RECORD | {"amount": None})["amount"] is None
    more = avro_schema(note={"type": {"type": "map", "values": "string"}}, card={"type": "int"})
    assert avro_values(schemas, more, RECORD | {"note": {"a": "b"}}) == RECORD


def test_a_type_may_be_used_by_its_name_after_its_definition(schemas: Registry) -> None:
    """In a record with a namespace, by its short or its full name, and in a union; a record is still no text."""
    colour: dict[str, Any] = {"type": "enum", "name": "Colour", "symbols": ["a", "b"]}
    for name in ("Colour", "shops.Colour"):
        schema = avro_schema(first={"type": colour}, shop={"type": ["null", name]}) | {"namespace": "shops"}
        first = [field for field in schema["fields"] if field["name"] == "first"]
        schema["fields"] = [*first, *(field for field in schema["fields"] if field["name"] != "first")]
        assert avro_values(schemas, schema, RECORD | {"first": "b"}) == RECORD
    colour = {"type": "record", "name": "Colour", "fields": [{"name": "x", "type": "int"}]}
    schema["fields"][0] = {"name": "first", "type": colour}
    with pytest.raises(PayloadError, match="has the type 'record' in the field 'shop'"):
        avro_values(schemas, schema, RECORD | {"first": {"x": 1}, "shop": {"x": 1}})


def test_a_schema_that_claims_to_be_parsed_is_parsed(schemas: Registry) -> None:
    marked = avro_schema() | {"__fastavro_parsed": True, "__named_schemas": {"long": {"type": "string"}}}
    number = schemas.add(SUBJECT, "AVRO", json.dumps(marked))
    reader = RegistryReader(AVRO, SchemaRegistry(schemas.url))
    assert reader.read(avro_message(number, avro_schema(), RECORD)) == RECORD


@pytest.mark.parametrize(("unit", "factor"), [("millis", 1_000), ("micros", 1), ("nanos", 0.001)])
def test_the_unit_of_a_time_is_that_of_its_logical_type(schemas: Registry, unit: str, factor: float) -> None:
    at = {"type": {"type": "long", "logicalType": f"timestamp-{unit}"}}
    values = avro_values(schemas, avro_schema(at=at), RECORD | {"at": round(BASE // 1_000 * 1_000 / factor)})
    assert values["at"] == BASE // 1_000 * 1_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": None}, "schema 1 lacks the field 'amount'"),
        (
            {"amount": {"type": "string"}},
            "has the type 'string' in the field 'amount', which cannot be read as float64",
        ),
        ({"amount": {"type": ["null", "int", "string"]}}, "has the type 'union' in the field 'amount'"),
        ({"card": {"type": "double"}}, "has the type 'double' in the field 'card', which cannot be read as int64"),
        ({"at": {"type": "long"}}, "has the type 'long' in the field 'at', which cannot be read as timestamp"),
        ({"shop": {"type": {"type": "bytes", "logicalType": "decimal"}}}, "has the type 'decimal' in the field 'shop'"),
    ],
)
def test_a_schema_that_the_columns_cannot_read_is_refused(
    schemas: Registry, changes: dict[str, Any], reason: str
) -> None:
    schema = avro_schema(**changes)
    number = schemas.add(SUBJECT, "AVRO", json.dumps(schema))
    reader = RegistryReader(AVRO, SchemaRegistry(schemas.url))
    with pytest.raises(PayloadError, match=reason):
        reader.read(avro_message(number, avro_schema(), RECORD))
    with pytest.raises(DefinitionError, match=f"cannot be read with its latest schema: .*{reason}"):
        reader.check_latest()


def test_the_latest_schema_fills_a_field_that_older_events_lack_with_its_default(schemas: Registry) -> None:
    schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(shop={"type": "string", "default": "unknown"})))
    older = {name: value for name, value in RECORD.items() if name != "shop"}
    assert avro_values(schemas, avro_schema(shop=None), older) == RECORD | {"shop": "unknown"}
    optional = avro_schema(shop={"type": ["null", "string"], "default": None})
    schemas.add(SUBJECT, "AVRO", json.dumps(optional))
    assert avro_values(schemas, avro_schema(shop=None), older)["shop"] is None
    schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema()))  # without a default
    with pytest.raises(PayloadError, match="lacks the field 'shop'"):
        avro_values(schemas, avro_schema(shop=None), older)


def test_an_alias_of_the_latest_schema_names_the_field_of_older_events(schemas: Registry) -> None:
    schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(shop={"type": "string", "aliases": ["store"]})))
    older = avro_schema(shop=None, store={"type": "string"})
    assert avro_values(schemas, older, RECORD | {"store": "b"})["shop"] == "b"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (avro_schema(more={"type": ["null", "shop.Payment"]}), "has a type that contains itself"),
        (avro_schema(more={"type": {"type": "array", "items": "null"}}), "has an array whose items have no bytes"),
        ({"type": "array", "items": "string"}, "is not a record"),
        ({"type": "record", "name": "Payment", "fields": [1]}, "has a field without name and type"),
        (avro_schema(more={"type": "nothing"}), "is not a valid Avro schema"),
    ],
)
def test_a_schema_whose_values_have_no_bound_is_refused(schemas: Registry, schema: object, reason: str) -> None:
    number = schemas.add(SUBJECT, "AVRO", json.dumps(schema))
    with pytest.raises(PayloadError, match=reason):
        RegistryReader(AVRO, SchemaRegistry(schemas.url)).read(avro_message(number, avro_schema(), RECORD))


def test_records_that_double_at_each_level_are_refused_at_once(schemas: Registry) -> None:
    kind: Any = "null"
    for level in range(30):
        fields = [{"name": "a", "type": kind}, {"name": "b", "type": f"R{level - 1}" if level else "null"}]
        kind = {"type": "record", "name": f"R{level}", "fields": fields}
    number = schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(more={"type": kind})))
    with pytest.raises(PayloadError, match="has more than 10000 fields"):
        RegistryReader(AVRO, SchemaRegistry(schemas.url)).read(avro_message(number, avro_schema(), RECORD))


def test_protobuf_presence_is_that_of_the_field(schemas: Registry) -> None:
    file = proto_file(optional=("amount",))
    assert proto_values(schemas, file, {"card": 7, "shop": "a", "online": True, "amount": 1.5}) == RECORD
    empty = proto_values(schemas, file, {})
    assert empty == {"card": 0, "amount": None, "shop": "", "online": False, "at": BASE}


def test_protobuf_follows_the_latest_descriptor_for_a_field_that_older_events_lack(schemas: Registry) -> None:
    schemas.add(SUBJECT, "PROTOBUF", proto_text(proto_file(optional=("amount",))))
    older = {name: kind for name, kind in PROTO_FIELDS.items() if name not in {"amount", "shop"}}
    values = proto_values(schemas, proto_file(older), {"card": 7})
    assert (values["amount"], values["shop"]) == (None, "")
    schemas.add(SUBJECT, "PROTOBUF", proto_text(proto_file(older)))
    with pytest.raises(PayloadError, match="lacks the field 'amount'"):
        proto_values(schemas, proto_file(older), {"card": 7})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (PROTO_FIELDS | {"amount": TYPES.TYPE_STRING}, "has the type 'string' in the field 'amount'"),
        (PROTO_FIELDS | {"card": TYPES.TYPE_BYTES}, "has the type 'bytes' in the field 'card'"),
    ],
)
def test_a_descriptor_that_the_columns_cannot_read_is_refused(
    schemas: Registry, fields: dict[str, int], reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason):
        proto_values(schemas, proto_file(fields), {})


def test_a_message_of_another_kind_is_refused(schemas: Registry) -> None:
    file = proto_file()
    file.message_type.add(name="Refund")
    number = schemas.add(SUBJECT, "PROTOBUF", proto_text(file))
    reader = RegistryReader(PROTOBUF, SchemaRegistry(schemas.url))
    other = b"\0" + number.to_bytes(4, "big") + b"\x02\x02"  # message indexes [1]
    with pytest.raises(PayloadError, match=r"is a 'shop.Refund', and the source declares 'shop.Payment'"):
        reader.read(other)
    with pytest.raises(PayloadError, match=r"declares 'shop\.Refund'"):
        proto_values(schemas, proto_file(), {}, replace(PROTOBUF, message="shop.Refund"))
    with pytest.raises(PayloadError, match="is PROTOBUF, and the source declares avro"):
        RegistryReader(AVRO, SchemaRegistry(schemas.url)).read(b"\0" + number.to_bytes(4, "big"))


def test_a_descriptor_may_import_others_but_no_module_of_python(schemas: Registry) -> None:
    file, other = proto_file(), proto_file({})
    other.package = "other"
    file.dependency.append("other.proto")
    schemas.add("other", "PROTOBUF", proto_text(other))
    number = schemas.add(
        SUBJECT, "PROTOBUF", proto_text(file), [{"name": "other.proto", "subject": "other", "version": 1}]
    )
    reader = RegistryReader(PROTOBUF, SchemaRegistry(schemas.url))
    assert reader.read(proto_message(number, proto_file(), {"card": 7}))["card"] == 7
    file.dependency.append("google/protobuf/../../os.proto")
    number = schemas.add("wrong", "PROTOBUF", proto_text(file))
    with pytest.raises(PayloadError, match="is not a valid Protobuf file"):
        reader.read(b"\0" + number.to_bytes(4, "big") + b"\0")


def test_an_event_that_cannot_be_read_goes_to_quarantine_with_its_reason_and_bytes(schemas: Registry) -> None:
    good = schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema()))
    changed = schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(amount={"type": "string"})))
    payloads = [
        avro_message(good, avro_schema(), RECORD),
        avro_message(changed, avro_schema(amount={"type": "string"}), RECORD | {"amount": "1.5"}),
        avro_message(99, avro_schema(), RECORD),
        avro_message(good, avro_schema(), RECORD)[:-1],
        b'{"card": 7}',
        avro_message(good, avro_schema(), RECORD | {"at": BASE + 2**40}),
    ]
    decoder = Decoder(AVRO, [], 1_000, RegistryReader(AVRO, SchemaRegistry(schemas.url)))
    rows = decoder.decode(payloads, range(len(payloads)), BASE)
    assert rows[REJECT].to_pylist() == [
        None,
        "schema 2 has the type 'string' in the field 'amount', which cannot be read as float64",
        "schema 99 is not in the registry",
        "the message is not Avro of schema 1",
        "the message does not begin with the byte 0 of the schema registry's wire format",
        "field 'at' is more than 10 s in the future",
    ]
    assert rows[RAW].to_pylist() == [None, *payloads[1:]]
    assert rows["amount"][0].as_py() == RECORD["amount"]


def test_a_narrow_column_refuses_a_number_that_it_cannot_hold(schemas: Registry) -> None:
    source = replace(PROTOBUF, columns=(Column(name="card", dtype=DType.INT64),))
    file = proto_file({"card": TYPES.TYPE_UINT64})
    number = schemas.add(SUBJECT, "PROTOBUF", proto_text(file))
    decoder = Decoder(source, [], 1_000, RegistryReader(source, SchemaRegistry(schemas.url)))
    rows = decoder.decode([proto_message(number, file, {"card": 2**63})], [0], BASE)
    assert rows[REJECT][0].as_py().startswith("field 'card'")


def test_while_the_registry_is_down_no_event_is_refused(schemas: Registry) -> None:
    number = schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema()))
    message = avro_message(number, avro_schema(), RECORD)
    decoder = Decoder(AVRO, [], 1_000, RegistryReader(AVRO, SchemaRegistry(schemas.url)))
    schemas.replies[f"/schemas/ids/{number}"] = 503, b""
    with pytest.raises(StoreError, match="answered with status 503"):
        decoder.decode([message], [0], BASE)
    schemas.replies.clear()
    assert decoder.decode([message], [0], BASE)[REJECT].to_pylist() == [None]


def test_a_plan_needs_a_registry_and_a_schema_that_its_columns_can_read(schemas: Registry) -> None:
    with pytest.raises(DefinitionError, match="has no schema registry"):
        check_formats([AVRO], Settings())
    settings = Settings(schema_registry=schemas.url)
    with pytest.raises(DefinitionError, match=r"has no schema in the registry \(got 'payments-value'\)"):
        check_formats([AVRO], settings)
    schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema()))
    check_formats([AVRO, replace(AVRO, format="json")], settings)
    schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(shop=None)))
    with pytest.raises(DefinitionError, match="lacks the field 'shop'"):
        check_formats([AVRO], settings)


def test_events_share_one_request_for_their_schema(schemas: Registry) -> None:
    number = schemas.add(SUBJECT, "AVRO", json.dumps(avro_schema(at={"type": MICROSECONDS})))
    reader = RegistryReader(AVRO, SchemaRegistry(schemas.url))
    for _ in range(20):
        reader.read(avro_message(number, avro_schema(), RECORD))
        with pytest.raises(PayloadError, match="schema 50 is not in the registry"):
            reader.read(avro_message(50, avro_schema(), RECORD))
    assert schemas.requests == [f"GET /schemas/ids/{number}", "GET /schemas/ids/50"]
