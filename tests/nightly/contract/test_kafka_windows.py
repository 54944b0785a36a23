"""From a Kafka topic to live windows, with the commands of a user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.log.event_rows import SOURCE_POS
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import log_partitions
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.servers.kafka import KafkaBroker
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.windowed import CARRIERS, MINUTE, NOW, write_repo

TOPIC = "landings-of-windows"


@pytest.fixture
def repo(kafka: KafkaBroker, tmp_path: Path) -> Iterator[Path]:
    repo = write_repo(tmp_path / "p")
    edit(
        repo,
        'PushSource(\n    name="landings",',
        f'KafkaSource(\n    name="landings", topic="{TOPIC}", kafka_bootstrap_servers="{kafka.bootstrap}",'
        ' timestamp_field="landed_at", message_format=JsonFormat("carrier string, arr_delay double"),',
    )
    kafka.make(TOPIC, 3)
    done("apply", "--repo", repo)
    yield repo
    PrivateServer(repo / ".skewless").stop()


def test_events_of_a_topic_are_seen_and_not_taken_twice(repo: Path) -> None:
    events = [{"carrier": CARRIERS[i % 3], "arr_delay": i / 2, "landed_at": NOW - i * MINUTE // 10} for i in range(300)]
    with Project(repo) as project:
        (source,) = project.streams.sources()
        sender = project.streams.sender(source)
        sender.send([json.dumps(event).encode() for event in events], [str(event["carrier"]) for event in events])
        (first,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert (first["accepted"], first["rejected"], first["partitions"]) == (300, 0, 3)
        sender.send([json.dumps(events[0]).encode()], ["AA"])
        (second,) = done("stream", "--until-idle", "--repo", repo)["sources"]
        assert second["read"] == 1
        sender.close()
        read = project.online_features("air", {"carrier": list(CARRIERS)})
        counts = read.matrix[:, read.labels.index("carrier_now__landings_1h")]
    assert counts.tolist() == [101.0, 100.0, 100.0]
    state = ProjectState(repo / ".skewless")
    logs = [PartitionLog(state, name) for name in log_partitions(state, "landings")]
    positions = [pos for log in logs for rows in log.read(columns=[SOURCE_POS]) for pos in rows[SOURCE_POS].to_pylist()]
    assert sorted(positions) == sorted(i for log in logs for i in range(log.next_seq()))
