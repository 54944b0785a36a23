"""Schemas of a registry that is not ours, in all formats: Apicurio Registry (`make setup-registry`)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.clock import from_us
from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.windows.view import EventFormat, EventSource
from skewless.infra.ingest.streams import worker as stream_worker
from skewless.infra.log.log_columns import REJECT
from skewless.infra.platform.formats.codec import PayloadError
from skewless_formats.events import RegistryReader
from skewless_formats.registry import SchemaKind, SchemaRegistry
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.servers.apicurio import ApicurioRegistry, apicurio_registry
from tests.servers.node import Node
from tests.worlds.formats import (
    AVRO,
    JSON_SCHEMA,
    MICROSECONDS,
    PROTO_FIELDS,
    PROTOBUF,
    TYPES,
    avro_message,
    avro_schema,
    json_message,
    json_schema,
    proto_file,
    proto_message,
    proto_text,
)
from tests.worlds.streams import BASE, SOURCE, StreamWorld, drain

KINDS: Mapping[str, SchemaKind] = {"avro": "AVRO", "protobuf": "PROTOBUF", "json-schema": "JSON"}
RECORD = {"card": 7, "amount": 1.5, "shop": "a", "online": True, "at": BASE}
EVERY_FORMAT = pytest.mark.parametrize("source", [AVRO, PROTOBUF, JSON_SCHEMA], ids=lambda source: source.format)
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
PROTO_TEXT = """syntax = "proto3"; package shop;
message Payment { int64 card = 1; double amount = 2; string shop = 3; bool online = 4; string at = 5; }"""


def write_schema(source: EventSource, *, more: str = "", wrong: bool = False) -> str:
    """Return a schema of payments; ``more``: an optional field; ``wrong``: what old readers cannot read."""
    if source.format == "avro":
        optional: dict[str, Any] = {more: {"type": ["null", "string"], "default": None}} if more else {}
        return json.dumps(avro_schema(**optional, **({"card": {"type": "string"}} if wrong else {})))
    if source.format == "protobuf":
        fields = PROTO_FIELDS | ({"card": TYPES.TYPE_STRING} if wrong else {})
        return proto_text(proto_file(fields | ({more: TYPES.TYPE_STRING} if more else {})))
    # JSON that may have any further property cannot get one with a type: older events may have another.
    closed = {"additionalProperties": False, "required": []}
    optional = {more: {"type": "string"}} if more else {}
    return json.dumps(json_schema(**optional, **({"card": {"type": "string"}} if wrong else {})) | closed)


def write_event(source: EventSource, number: int) -> bytes:
    if source.format == "avro":
        return avro_message(number, avro_schema(), RECORD)
    if source.format == "protobuf":
        return proto_message(number, proto_file(), {name: RECORD[name] for name in PROTO_FIELDS})
    return json_message(number, RECORD)


@pytest.fixture
def subject() -> str:
    """A subject of the test alone."""
    return f"s{uuid.uuid4().hex}-value"


@EVERY_FORMAT
def test_a_schema_is_registered_once_and_events_of_all_its_versions_are_read(
    apicurio: ApicurioRegistry, source: EventSource, subject: str
) -> None:
    """Versions that later readers can read are accepted, others are an error of the registry that names its reason."""
    client, source = SchemaRegistry(apicurio.url), replace(source, subject=subject)
    text, kind = write_schema(source), KINDS[source.format]
    first = client.register(subject, kind, text)
    assert client.register(subject, kind, text) == first
    apicurio.check_changes(subject)
    if kind == "PROTOBUF":  # of which Apicurio compares texts alone
        with pytest.raises(StoreError, match="answered with status 500"):
            client.register(subject, kind, write_schema(source, more="note"))
        assert apicurio.ask("DELETE", f"/config/{subject}")[0] == 200
    second = client.register(subject, kind, write_schema(source, more="note"))
    assert second != first
    if kind != "PROTOBUF":
        with pytest.raises(DefinitionError, match=rf"subject '{subject}' .*does not accept .*Incompatible"):
            client.register(subject, kind, write_schema(source, wrong=True))
    found, latest = client.schema(first), client.latest(subject)
    assert found is not None
    assert latest is not None
    assert (found.kind, found.text, latest.id) == (kind, text, second)
    reader = RegistryReader(source, client)
    reader.check_latest()
    assert reader.read(write_event(source, first)) == RECORD
    if kind == "AVRO":  # whose events have all fields of their schema, in its order
        schema = avro_schema(note={"type": ["null", "string"], "default": None})
        assert reader.read(avro_message(second, schema, RECORD | {"note": "b"})) == RECORD
    else:
        assert reader.read(write_event(source, second)) == RECORD


@EVERY_FORMAT
def test_what_the_registry_does_not_have_is_named(
    apicurio: ApicurioRegistry, source: EventSource, subject: str
) -> None:
    reader = RegistryReader(replace(source, subject=subject), SchemaRegistry(apicurio.url))
    with pytest.raises(PayloadError, match="schema 999999 is not in the registry"):
        reader.read(write_event(source, 999_999))
    with pytest.raises(DefinitionError, match=rf"has no schema in the registry \(got '{subject}'\)"):
        reader.check_latest()
    other = PROTOBUF if source is AVRO else AVRO
    number = apicurio.add(subject, KINDS[other.format], write_schema(other))
    with pytest.raises(PayloadError, match=rf"is {KINDS[other.format]}, and the source declares {source.format}"):
        reader.read(write_event(source, number))


@pytest.mark.parametrize("name", ["a/b c", "ü-value", "100%", "a?b=c#d", "com.shop.Payment"])
def test_a_subject_may_have_any_name(apicurio: ApicurioRegistry, name: str, subject: str) -> None:
    client, own = SchemaRegistry(apicurio.url), f"{name}{subject}"
    number = client.register(own, "AVRO", '"int"')
    latest = client.latest(own)
    assert latest is not None
    assert latest.id == number


def refer(name: str, subject: str) -> list[dict[str, Any]]:
    return [{"name": name, "subject": subject, "version": 1}]


def test_a_schema_may_reference_another_subject(apicurio: ApicurioRegistry, subject: str) -> None:
    client, shop = SchemaRegistry(apicurio.url), {"type": "enum", "name": "Shop", "namespace": "w", "symbols": ["a"]}
    apicurio.add(f"{subject}-avro", "AVRO", json.dumps(shop))
    schema = avro_schema(shop={"type": "w.Shop"})
    number = apicurio.add(subject, "AVRO", json.dumps(schema), refer("w.Shop", f"{subject}-avro"))
    assert RegistryReader(AVRO, client).read(avro_message(number, schema, RECORD, shop)) == RECORD

    apicurio.add(f"{subject}-json", "JSON", json.dumps({"$schema": DRAFT_7, "enum": ["a"]}))
    schema = json_schema(shop={"$ref": "shop.json"})
    number = apicurio.add(f"{subject}2", "JSON", json.dumps(schema), refer("shop.json", f"{subject}-json"))
    reader = RegistryReader(JSON_SCHEMA, client)
    assert reader.read(json_message(number, RECORD)) == RECORD
    with pytest.raises(PayloadError, match=f"does not match 'properties/shop/enum' of schema {number}"):
        reader.read(json_message(number, RECORD | {"shop": "b"}))

    file, other = proto_file(), proto_file({})
    other.package = "other"
    file.dependency.append("other.proto")
    apicurio.add(f"{subject}-proto", "PROTOBUF", proto_text(other))
    number = apicurio.add(f"{subject}3", "PROTOBUF", proto_text(file), refer("other.proto", f"{subject}-proto"))
    values = {name: RECORD[name] for name in PROTO_FIELDS}
    assert RegistryReader(PROTOBUF, client).read(proto_message(number, proto_file(), values)) == RECORD
    status, reply = apicurio.ask(
        "POST", f"/subjects/{subject}4/versions", {"schema": json.dumps(schema), "references": refer("a", "none")}
    )
    assert (status, reply["message"]) == (422, "Unresolved reference")


def test_a_protobuf_file_that_was_registered_as_text_is_not_read(apicurio: ApicurioRegistry, subject: str) -> None:
    """Apicurio returns what was registered, although it is asked for a serialized file, as Confluent's registry has."""
    client = SchemaRegistry(apicurio.url)
    number = client.register(subject, "PROTOBUF", PROTO_TEXT)
    apicurio.check_changes(subject)
    with pytest.raises(DefinitionError, match=rf"subject '{subject}' .*does not accept .*Incompatible"):
        client.register(subject, "PROTOBUF", PROTO_TEXT.replace("int64", "string"))
    with pytest.raises(PayloadError, match=f"schema {number} is not a serialized Protobuf file"):
        RegistryReader(PROTOBUF, client).read(write_event(PROTOBUF, number))


@pytest.mark.soak
def test_a_registry_that_wants_a_login_is_not_read_without_it(tmp_path: Path) -> None:
    auth = ("-Dregistry.auth.enabled=true", "-Dregistry.keycloak.url=http://127.0.0.1:9")
    with apicurio_registry(tmp_path / "r", *auth) as registry:
        for url in (registry.url, registry.url.replace("//", "//ann:hush@")):
            client = SchemaRegistry(url)
            for ask in (lambda: client.schema(1), lambda: client.register("a", "AVRO", '"int"')):  # noqa: B023 - at once
                with pytest.raises(StoreError, match="answered with status 401") as refusal:
                    ask()
                assert "hush" not in str(refusal.value)


STREAM_TYPES = {"event": "string", "id": "int64", "x": "double", "y": "double", "n": "int64", "s": "string"}
JSON_TYPES = {"double": "number", "int64": "integer"}


class StreamSchemas:
    """Schemas of the events of ``SOURCE`` in a format, each of another version, and events of them."""

    def __init__(self, source: EventSource) -> None:
        self._format, self._n_events = source.format, 0

    def _fields(self, version: int) -> dict[str, str]:
        return STREAM_TYPES | {"ts": "string"} | ({f"more{version}": "string"} if version else {})

    def _avro(self, version: int) -> dict[str, Any]:
        kinds = {"int64": "long"}
        fields = {name: {"type": kinds.get(kind, kind)} for name, kind in self._fields(version).items()}
        without: dict[str, Any] = dict.fromkeys(("card", "amount", "shop", "online", "at"))
        return avro_schema(**without, **(fields | {"ts": {"type": MICROSECONDS}}))

    def _proto(self, version: int) -> Any:  # noqa: ANN401 - generated
        fields = {name: getattr(TYPES, f"TYPE_{kind.upper()}") for name, kind in self._fields(version).items()}
        return proto_file(fields)

    def add(self, registry: ApicurioRegistry, version: int) -> int:
        """Register a version; return its id."""
        if self._format == "avro":
            return registry.add("t-value", "AVRO", json.dumps(self._avro(version)))
        if self._format == "protobuf":
            return registry.add("t-value", "PROTOBUF", proto_text(self._proto(version)))
        fields = {name: {"type": JSON_TYPES.get(kind, kind)} for name, kind in self._fields(version).items()}
        return registry.add("t-value", "JSON", json.dumps({"properties": fields, "required": list(fields)}))

    def write(self, number: int, version: int, now_us: int) -> bytes:
        """Return the message of a new event."""
        self._n_events += 1
        event: dict[str, Any] = {"event": f"e{self._n_events}", "id": 1, "x": 1.5, "y": 2.0, "n": 3, "s": "a"}
        event |= {name: "b" for name in self._fields(version) if name.startswith("more")}
        time = from_us(now_us).isoformat()
        if self._format == "avro":
            return avro_message(number, self._avro(version), event | {"ts": now_us})
        if self._format == "protobuf":
            return proto_message(number, self._proto(version), event | {"ts": time})
        return json_message(number, event | {"ts": time})


@pytest.mark.soak
@pytest.mark.parametrize("name", ["avro", "protobuf", "json-schema"])
def test_a_worker_waits_for_a_registry_that_hangs_or_is_away_and_loses_nothing(
    valkey: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: EventFormat
) -> None:
    """Events of schemas that it has read go on meanwhile."""
    for limit in ("_LINGER_S", "_RETRY_S", "_CHECK_S"):
        monkeypatch.setattr(stream_worker, limit, 0.0)
    valkey.ask("FLUSHALL")
    source = replace(SOURCE, kind="kafka", topic="t", servers="localhost:9092", format=name)
    world, broker, schemas = (
        StreamWorld(tmp_path / "p", valkey.url, source=source),
        MemoryBroker(1),
        StreamSchemas(source),
    )
    with apicurio_registry(tmp_path / "r") as registry, world.store() as store:
        world.ensure()
        ids = [schemas.add(registry, version) for version in range(3)]
        assert len(set(ids)) == 3

        def send(version: int) -> None:
            for _ in range(3):
                broker.append(0, schemas.write(ids[version], version, world.clock.now_us()))

        worker = world.worker(store, lambda owner: MemoryStream(broker, owner), registry=registry.url)
        send(0)
        drain(worker)
        registry.freeze()
        send(0)
        drain(worker)
        assert len(world.events()) == 6
        send(1)
        worker.step()
        assert "did not answer in 10 s" in (worker.counts.trouble or "")
        registry.thaw()
        drain(worker)
        assert len(world.events()) == 9
        registry.kill()
        send(2)
        worker.step()
        worker.step()
        assert "cannot be reached" in (worker.counts.trouble or "")
        assert len(world.events()) == 9
        registry.start()
        send(0)
        drain(worker)
        worker.close()
    (rows,) = world.logged().values()
    assert [row["event"] for row in rows] == [f"e{n}" for n in range(1, 16)]
    assert all(row[REJECT] is None for row in rows)
