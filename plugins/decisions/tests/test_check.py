"""The check of each run of `make test`: events are decided and delivered once, and proved; the port is the plug-in."""

from __future__ import annotations

from pathlib import Path

from plugins.decisions.tests.decision_kills import deciding_world, delivered, work
from skewless.operations.data.decision_port import DecisionPort, find_decisions
from skewless_decisions import port
from tests.reliability.stream_kills import open_stream, send
from tests.servers.node import Node
from tests.worlds.streams import Traffic

PORT: DecisionPort = port  # mypy holds the module against the contract


def test_the_core_finds_the_port() -> None:
    assert find_decisions() is PORT


def test_each_event_is_decided_and_delivered_once(tmp_path: Path, valkey: Node) -> None:
    deciding, traffic = deciding_world(tmp_path / "p", valkey.url), Traffic(3)
    deciding.publish()
    deciding.ensure()
    send(deciding.root, traffic.make(20, deciding.clock.now_us()))
    work(deciding, open_stream(deciding.root))
    assert deciding.check_decisions() == len(traffic.good) > 5
    assert list(delivered(valkey, deciding)) == [row["id"] for row in deciding.log_rows()]
