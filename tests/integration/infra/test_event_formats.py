"""Event sources with a schema registry: compiled from definitions, and planned against the schemas of a registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from feast import FileSource

from skewless.contract.errors import DefinitionError, RequestError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.definitions import kafka_event_source
from skewless.infra.definitions.compiler.compile import compile_repo
from skewless.infra.definitions.compiler.event_sources import compile_stream
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.ingest.streams.redis_link import open_sender
from skewless.infra.platform.storage.project_state import ProjectState
from tests.servers.registry import Registry
from tests.worlds.edits import edit
from tests.worlds.windowed_types import KAFKA, PUSH, write_repo

HISTORY = FileSource(path="data/events.parquet", timestamp_field="at")
FORMATS = {"AvroFormat": 'AvroFormat(schema_json="")', "ProtoFormat": 'ProtoFormat(class_path="air.Landing")'}
TYPES = {
    "string": "string",
    "int32": "int",
    "float64": "double",
    "bool": "boolean",
    "int64": "long",
    "float32": "float",
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_repo(tmp_path / "repo")


def declare(repo: Path, name: str) -> EventSource:
    """Make the project's source a topic in a format."""
    json_format = 'JsonFormat(schema_json="")'
    text = (KAFKA % "").replace(json_format, FORMATS[name])
    edit(repo, PUSH, text)
    path = repo / "definitions.py"
    path.write_text(f"from feast.data_format import AvroFormat, ProtoFormat\n{path.read_text()}")
    return compile_repo(repo).plan.source("landings")


def schema_of(source: EventSource, **changes: str) -> str:
    """Return an Avro schema with all columns of a source, some of another type."""
    types: dict[str, Any] = {column.name: TYPES.get(column.dtype.value, "long") for column in source.columns} | changes
    time = {"type": "long", "logicalType": "timestamp-millis"}
    fields = [
        {"name": column.name, "type": time if column.dtype.value == "timestamp" else types[column.name]}
        for column in source.columns
    ]
    fields.append({"name": source.event_column, "type": time})
    return json.dumps({"type": "record", "name": "Landing", "fields": fields})


def test_a_topic_has_the_format_of_its_definition(repo: Path) -> None:
    source = declare(repo, "ProtoFormat")
    assert (source.format, source.message, source.registry_subject) == (
        "protobuf",
        "air.Landing",
        "air.landings-value",
    )
    assert EventSource.from_dict(source.as_dict()) == source


@pytest.mark.parametrize("subject", [None, "landings"])
def test_json_with_a_subject_has_schemas_and_json_without_one_has_none(repo: Path, subject: str | None) -> None:
    """Also of a source that is declared with Feast alone."""
    source = kafka_event_source(
        "landings",
        topic="air.landings",
        servers="h:1",
        timestamp_field="at",
        history=HISTORY,
        columns={"card": "int64"},
        format="json-schema",
        subject=subject,
    )
    compiled = compile_stream("event source 'landings'", source, "at", repo)
    assert (compiled.format, compiled.registry_subject) == ("json-schema", subject or "air.landings-value")
    assert EventSource.from_dict(compiled.as_dict()) == compiled
    del source.tags["skewless.subject"]
    assert compile_stream("event source 'landings'", source, "at", repo).format == "json"


def test_definitions_declare_a_format() -> None:
    place: dict[str, Any] = {"topic": "t", "servers": "h:1", "timestamp_field": "at", "history": HISTORY}
    columns: dict[str, Any] = {"columns": {"card": "int64"}}
    avro = kafka_event_source("pay", **place, **columns, format="avro", subject="pays")
    assert (type(avro.kafka_options.message_format).__name__, avro.tags["skewless.subject"]) == ("AvroFormat", "pays")
    protobuf: Any = kafka_event_source("pay", **place, **columns, format="protobuf", message="shop.Payment")
    assert protobuf.kafka_options.message_format.class_path == "shop.Payment"
    for wrong, problem in (
        ({"format": "xml"}, "has an unknown format"),
        ({"subject": "s"}, "has no subject in the format 'json'"),
        ({"format": "avro", "message": "m"}, "has no message in the format 'avro'"),
    ):
        with pytest.raises(DefinitionError, match=problem):
            kafka_event_source("pay", **place, **columns, **wrong)  # type: ignore[arg-type]


def test_a_plan_of_json_has_the_hash_that_it_had(repo: Path) -> None:
    source = compile_repo(repo).plan.source("landings")
    assert not {"format", "subject", "message"} & source.as_dict().keys()


def test_a_plan_is_checked_against_the_latest_schema(repo: Path, schemas: Registry) -> None:
    source = declare(repo, "AvroFormat")
    with duckdb.connect() as connection:
        settings = Settings(schema_registry=schemas.url)
        planner = Planner(
            repo=repo, state=ProjectState(repo / ".skewless"), connect=lambda: connection, settings=settings
        )
        with pytest.raises(DefinitionError, match=r"has no schema in the registry \(got 'air.landings-value'\)"):
            planner.plan()
        schemas.add("air.landings-value", "AVRO", schema_of(source))
        planner.plan()
        planner.apply(1)
        schemas.add("air.landings-value", "AVRO", schema_of(source, fuel="string"))
        with pytest.raises(DefinitionError, match="latest schema: schema 2 has the type 'string' in the field 'fuel'"):
            planner.plan()  # although no definition has changed
        schemas.replies["/subjects/air.landings-value/versions/latest"] = 503, b""
        with pytest.raises(StoreError, match="answered with status 503"):
            planner.plan()


def test_json_is_not_sent_to_a_topic_of_another_format(repo: Path) -> None:
    source = declare(repo, "AvroFormat")
    with pytest.raises(RequestError, match=r"has messages that skewless reads and does not write \(got 'avro'\)"):
        open_sender(source, Settings(), project="p", redis_url="redis://h")
