"""Messages of decisions, read by other libraries, and schemas that the registry keeps."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from plugins.decisions.tests.decided import PARTITION, STREAM, T_US, decided_rows, decision_id
from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.contract.sinks import KafkaSink, MessageFormat, RedisStreamSink, Sink
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import CONTENT
from skewless_decisions.decision import (
    FramedMessages,
    JsonMessages,
    LoggedDecision,
    find_decisions,
    open_schema,
)
from skewless_decisions.outbox import Outbox
from skewless_decisions.sink_adapters import SinkContext, open_delivery, open_writer
from tests.servers.registry import Registry

DECISION = LoggedDecision(
    id="1-a-0",
    stream="fraud",
    model="m",
    version="000002",
    score=0.1,
    scores=[0.1, 1e-300],
    action="review",
    reasons=["high score", "new card"],
    inputs='{"card":9007199254740993,"shop":"\\u00e9"}',
    partition="events/p/a/0",
    position=7,
    event_time=1_760_000_000_000_001,
    decided_at=1_760_000_000_250_000,
    late=True,
)
PLAIN = DECISION._replace(scores=None, action=None, reasons=[], late=False)


def test_json_has_numbers_and_inputs_as_they_were_logged() -> None:
    text = JsonMessages().write(DECISION).decode()
    assert '"inputs":{"card":9007199254740993,"shop":"\\u00e9"}' in text
    assert json.loads(text) == {
        "id": "1-a-0",
        "stream": "fraud",
        "model": "m",
        "version": "000002",
        "score": 0.1,
        "scores": [0.1, 1e-300],
        "action": "review",
        "reasons": ["high score", "new card"],
        "inputs": {"card": 9007199254740993, "shop": "é"},
        "partition": "events/p/a/0",
        "position": 7,
        "event_time": "2025-10-09T08:53:20.000001+00:00",
        "decided_at": "2025-10-09T08:53:20.250000+00:00",
        "late": True,
    }
    assert json.loads(JsonMessages().write(PLAIN._replace(score=float("nan"))))["score"] is None


@pytest.mark.parametrize("decision", [DECISION, PLAIN])
def test_other_readers_read_avro_and_protobuf(decision: LoggedDecision) -> None:
    avro = open_schema("avro")
    message = FramedMessages(avro, 258).write(decision)
    assert message[:5] == b"\x00\x00\x00\x01\x02"
    schema = {**json.loads(avro.text)}
    for field in schema["fields"]:
        if isinstance(field["type"], dict) and "logicalType" in field["type"]:
            field["type"] = "long"
    assert (
        fastavro.schemaless_reader(io.BytesIO(message[5:]), fastavro.parse_schema(schema), None) == decision._asdict()
    )

    protobuf = open_schema("protobuf")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(protobuf.text)))
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("skewless.Decision"))
    message = FramedMessages(protobuf, 258).write(decision)
    assert message[:6] == b"\x00\x00\x00\x01\x02\x00"
    read = kind.FromString(message[6:])
    expected = decision._asdict() | {"scores": list(decision.scores or ()), "action": decision.action or ""}
    assert {
        name: list(value) if name in {"scores", "reasons"} else value
        for name, value in ((name, getattr(read, name)) for name in expected)
    } == expected
    assert read.HasField("action") == (decision.action is not None)


def test_decisions_are_found_among_requests_shadows_and_other_streams() -> None:
    rows = [
        decided_rows([1], stream=None),
        decided_rows([2, 3]),
        decided_rows([4], role="shadow"),
        decided_rows([5], stream="b"),
    ]
    table = pa.concat_tables(rows).cast(CONTENT)
    found = find_decisions(table, {STREAM})
    assert [(offset, decision.id) for offset, decision in found] == [(1, decision_id(2)), (2, decision_id(3))]
    decision = found[0][1]
    assert (decision.partition, decision.position, decision.event_time) == (PARTITION, 2, T_US + 2)
    assert (decision.key("card"), decision.key(None), decision.key("none")) == ("2", PARTITION, "null")
    assert find_decisions(table.slice(0, 1), {STREAM}) == []


def test_the_action_of_a_policy_is_delivered() -> None:
    rows = decided_rows([1, 2])
    kept = rows.select([name for name in rows.column_names if name not in {"action", "reasons"}])
    reasons = pa.array([["new card"], None], pa.list_(pa.string()))
    table = kept.append_column("action", pa.array(["review", None])).append_column("reasons", reasons)
    first, second = (decision for _, decision in find_decisions(table, {STREAM}))
    assert (first.action, first.reasons) == ("review", ["new card"])
    assert (second.action, second.reasons) == (None, [])


def outbox(root: Path) -> Outbox:
    return Outbox(ProjectState(root), "out", streams=(), check=lambda: None)


@pytest.mark.parametrize("name", ["avro", "protobuf"])
def test_the_id_of_a_schema_stays_so_that_the_bytes_stay(
    schemas: Registry, tmp_path: Path, name: MessageFormat
) -> None:
    sink = KafkaSink(name="out", topic="decisions", servers="h:1", format=name)
    context = SinkContext(
        state=ProjectState(tmp_path),
        settings=Settings(schema_registry=schemas.url),
        redis_url=lambda: "",
        environment={},
    )
    first = open_writer(context, sink, outbox(tmp_path)).write(DECISION)
    assert schemas.requests == ["POST /subjects/decisions-value/versions"]
    schemas.schemas.insert(0, {"schemaType": "AVRO", "schema": '"int"', "references": []})  # a new registry
    assert open_writer(context, sink, outbox(tmp_path)).write(DECISION) == first
    assert len(schemas.requests) == 1
    renamed = replace(sink, subject="other")
    assert open_writer(context, renamed, outbox(tmp_path)).write(DECISION)[:5] == b"\x00\x00\x00\x00\x02"


def test_a_format_without_a_registry_is_an_error(tmp_path: Path) -> None:
    sink = KafkaSink(name="out", topic="decisions", servers="h:1", format="avro")
    context = SinkContext(state=ProjectState(tmp_path), settings=Settings(), redis_url=lambda: "", environment={})
    with pytest.raises(
        DefinitionError, match="sink 'out': has the format 'avro', and the project has no schema registry"
    ):
        open_writer(context, sink, outbox(tmp_path))


@pytest.mark.parametrize(
    "sink",
    [
        KafkaSink(name="out", topic="decisions", servers="kafka:1"),
        RedisStreamSink(name="out", stream="s", url_env="OUT_URL"),
    ],
)
def test_a_worker_checks_the_host_too(tmp_path: Path, sink: Sink) -> None:
    """A plan was perhaps applied with other settings, and the URL of a Redis is known to the worker alone."""
    context = SinkContext(
        state=ProjectState(tmp_path),
        settings=Settings(sink_hosts=("cases.shop.com",)),
        redis_url=lambda: "",
        environment={"OUT_URL": "redis://ann:hush@10.0.0.1:1/0"},
    )
    with pytest.raises(DefinitionError, match="sink 'out': delivers to a host that is not allowed") as raised:
        open_delivery(context, sink, outbox(tmp_path))
    assert "hush" not in str(raised.value)
