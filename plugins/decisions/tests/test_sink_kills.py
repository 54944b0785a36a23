"""A process that delivers is killed at random: each decision arrives, in order, and always as the same bytes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from plugins.decisions.tests.decided import STREAM, append_decisions, decision_id
from plugins.decisions.tests.sinks import ParquetSinkKind, RedisSinkKind, SinkKind
from skewless.contract.settings import Settings
from skewless.contract.sinks import ParquetSink, RedisStreamSink, Sink
from skewless.infra.platform.storage.project_state import ProjectState
from skewless_decisions.delivery import SinkDelivery
from skewless_decisions.sink_adapters import SinkContext
from skewless_decisions.sink_positions import SinkPositions
from tests.servers.node import Node

KILLS = 15


def deliver(root: str, url: str, stream: str) -> None:
    """Deliver until this process is killed."""
    sink: Sink = (
        RedisStreamSink(name="out", stream=stream, batch=50)
        if stream
        else ParquetSink(name="out", batch=50, every_s=0.0)
    )
    context = SinkContext(state=ProjectState(Path(root)), settings=Settings(), redis_url=lambda: url, environment={})
    SinkDelivery(context, sink, [STREAM]).start()
    while True:
        time.sleep(1)


def count_confirmed(state: ProjectState) -> int:
    position = SinkPositions(state.database).read("out")
    return 0 if position is None else position.confirmed


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["redis", "parquet"])
def test_each_decision_arrives_although_its_process_dies(name: str, tmp_path: Path, valkey: Node) -> None:
    kind: SinkKind = RedisSinkKind(valkey) if name == "redis" else ParquetSinkKind(tmp_path)
    stream = kind.sink.stream if isinstance(kind.sink, RedisStreamSink) else ""
    state, n = ProjectState(tmp_path), 0
    SinkPositions(state.database).begin("out", 0)
    code = f"from {__name__} import deliver; deliver({str(tmp_path)!r}, {valkey.url!r}, {stream!r})"
    dice = random.Random(uuid.uuid4().int)
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", code])
        begun = count_confirmed(state)
        deadline = time.monotonic() + 60
        for _ in range(dice.randint(1, 20)):
            append_decisions(state, range(n, n + 30))
            n += 30
        # Killed somewhere in its deliveries, which begin once it has the lease.
        while count_confirmed(state) == begun and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.1))
        process.kill()
        process.wait()
    process = subprocess.Popen([sys.executable, "-c", code])
    while count_confirmed(state) < n:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    messages: dict[str, object] = {}
    for identity, message in kind.stored():
        assert messages.setdefault(identity, message) == message
    assert list(messages) == [decision_id(position) for position in range(n)]
    assert count_confirmed(state) == n
