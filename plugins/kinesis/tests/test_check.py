"""From a Kinesis stream to live windows, with the commands of a user; and workers that are killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FileSource
from feast.data_format import JsonFormat
from feast.data_source import DataSource

from plugins.kinesis.tests.kinesis_place import KinesisPlace
from plugins.kinesis.tests.worker_kills import check_once, run_kills, world_at
from skewless.contract.errors import DefinitionError
from skewless.infra.definitions.compiler.event_sources import compile_stream
from skewless.infra.ingest.streams.port import require_connector
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from skewless_kinesis.source import KinesisSource
from tests.servers.aws import REGION
from tests.servers.node import Node
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.windowed import CARRIERS, MINUTE, NOW, write_repo


@pytest.fixture
def repo(kinesis_place: KinesisPlace, tmp_path: Path) -> Iterator[Path]:
    repo = write_repo(tmp_path / "p")
    edit(
        repo,
        'PushSource(\n    name="landings",',
        f'KinesisSource(\n    name="landings", stream_name="{kinesis_place.name}", region="{REGION}",'
        ' timestamp_field="landed_at", record_format=JsonFormat("carrier string, arr_delay double"),',
    )
    path = repo / "definitions.py"
    path.write_text("from skewless_kinesis.source import KinesisSource\n" + path.read_text())
    done("apply", "--repo", repo)
    yield repo
    PrivateServer(repo / ".skewless").stop()


def test_events_of_a_stream_are_seen_and_not_taken_twice(repo: Path) -> None:
    events = [{"carrier": CARRIERS[i % 3], "arr_delay": i / 2, "landed_at": NOW - i * MINUTE // 10} for i in range(300)]
    with Project(repo) as project:
        (source,) = project.streams.sources()
        sender = project.streams.sender(source)
        sender.send([json.dumps(event).encode() for event in events])
        (first,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert (first["accepted"], first["rejected"], first["partitions"]) == (300, 0, 4)
        sender.send([json.dumps(events[0]).encode()], ["AA"])
        (second,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert second["read"] == 1
        sender.close()
        read = project.online_features("air", {"carrier": list(CARRIERS)})
        counts = read.matrix[:, read.labels.index("carrier_now__landings_1h")]
        facts = require_connector("kinesis").describe(source, project.streams.settings)
        assert facts.detail == "4 shards, records are kept for 24 hours"
    assert counts.tolist() == [101.0, 100.0, 100.0]


def test_a_source_comes_back_from_a_registry_as_it_was() -> None:
    history = FileSource(name="h", path="h.parquet", timestamp_field="t")
    place: Any = {"stream_name": "s", "region": REGION, "record_format": JsonFormat(schema_json="a int64")}
    source = KinesisSource(name="payments", timestamp_field="t", batch_source=history, tags={"a": "b"}, **place)
    back = DataSource.from_proto(source.to_proto())
    assert isinstance(back, KinesisSource)
    assert back == source
    assert (back.tags, back.batch_source) == ({"a": "b"}, history)
    compiled = compile_stream("event source 'payments'", back, "t", Path())
    assert (compiled.kind, compiled.topic, compiled.servers) == ("kinesis", "s", REGION)
    nowhere = KinesisSource(name="payments", timestamp_field="t", batch_source=history, **place | {"region": ""})
    with pytest.raises(DefinitionError, match=r"has no region\. Fix: set region of the KinesisSource"):
        compile_stream("event source 'payments'", nowhere, "t", Path())


def test_a_kind_without_its_connector_names_the_extra() -> None:
    with pytest.raises(DefinitionError, match=r"stream 'pulsar': is not installed.*skewless\[pulsar\]"):
        require_connector("pulsar")


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 0), *(pytest.param(40, seed, marks=pytest.mark.soak) for seed in range(1, 3))]
)
@pytest.mark.timeout(1_200)
def test_4_2_workers_that_are_killed_lose_nothing_and_count_nothing_twice(
    kinesis_place: KinesisPlace, tmp_path: Path, valkey: Node, kills: int, seed: int
) -> None:
    valkey.ask("FLUSHALL")
    world = world_at(tmp_path / f"p{seed}", valkey.url)
    n = run_kills(kinesis_place, world, kills, seed)
    check_once(world, n)
    with world.store() as store:
        world.streams().catch_up("s", store)
    world.check()
