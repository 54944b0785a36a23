"""A worker, its store and its log under whatever happens, in any order, against brute force over what was sent."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import REJECT
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.servers.node import Node
from tests.windows.log import signed
from tests.windows.oracle import Event, Value
from tests.worlds.streams import IDS, INPUTS, VIEW, StreamWorld, brute, drain, look

PARTITIONS = 2
BAD = [b"{", b"[]", b'{"event": "e1", "id": null, "ts": 1700000000000000}', b'{"event": "e2", "id": 1}', None]
VALUES = st.fixed_dictionaries(
    {
        "x": st.sampled_from([None, -0.0, 0.0005, 2.5, 1e6]),
        "y": st.sampled_from([None, 5e-324, 1.5]),
        "n": st.sampled_from([None, 2**53 + 1, -7]),
        "s": st.sampled_from([None, "", "a", "日本"]),
    }
)
AGES = st.sampled_from([0, 1, -1, 1_500, 5 * SECOND, 10 * SECOND - 1, 65 * SECOND, 200 * SECOND, -9 * SECOND])
MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 3), AGES, VALUES),  # a new event
        st.integers(1, 9),  # one of the last messages again
        st.sampled_from(BAD),
    ),
    min_size=1,
    max_size=12,
)


@dataclass
class SentEvents:
    """What one life of a partition was sent, and what of it counts."""

    ids: set[str] = field(default_factory=set)
    rows: list[dict[str, Any] | None] = field(default_factory=list)

    def take(self, message: bytes | None) -> None:
        body = None if message in BAD else json.loads(message or b"")
        if body is None:
            self.rows.append(None)
        elif body["event"] not in self.ids:
            self.ids.add(body["event"])
            self.rows.append(body)


class StreamWorkerMachine(RuleBasedStateMachine):
    """Everything that may happen to one project."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node
        self.folder = tempfile.TemporaryDirectory()
        self.world = StreamWorld(root=Path(self.folder.name) / "p", url=node.url)
        self.broker = MemoryBroker(PARTITIONS)
        self.sent: dict[str, SentEvents] = {}
        self.messages: list[tuple[int, bytes | None]] = []
        self.copy: list[tuple[bytes, bytes]] | None = None
        self.life = self.number = 0
        node.ask("FLUSHALL")
        self.writer = RedisWriter(node.url)
        self.worker = self._hire()

    @initialize()
    def begin(self) -> None:
        self.world.ensure()

    @rule(messages=MESSAGES)
    def send(self, messages: list[Any]) -> None:
        for each in messages:
            if isinstance(each, int) and len(self.messages) >= each:
                self._put(*self.messages[-each])
            elif isinstance(each, tuple):
                self.number += 1
                key, age, values = each
                body = {"event": f"n{self.number}", "id": key, "ts": self.world.clock.now_us() - age, **values}
                self._put(key % PARTITIONS, json.dumps(body).encode())
            elif not isinstance(each, int):
                self._put(0, each)

    @rule(times=st.integers(1, 4))
    def work(self, times: int) -> None:
        for _ in range(times):
            self.worker.step()

    @rule(seconds=st.sampled_from([0.001, 1, 5, 30, 120]))
    def wait(self, seconds: float) -> None:
        self.world.clock.set(self.world.clock.now_us() + int(seconds * SECOND))

    @rule()
    def kill(self) -> None:
        group = self.broker.group("skewless")
        group.members.clear()
        group.owners.clear()
        self.worker = self._hire()

    @rule()
    def lose_all(self) -> None:
        self.node.ask("FLUSHALL")

    @rule()
    def copy_the_store(self) -> None:
        self.copy = [(name, self.node.ask("DUMP", name)) for name in self.node.ask("KEYS", "*")]

    @precondition(lambda self: self.copy)
    @rule()
    def lose_what_came_since(self) -> None:
        with self.node.client() as client:
            client.flushall()
            for name, value in self.copy or ():
                client.restore(name, 0, value)

    @rule()
    def begin_the_stream_anew(self) -> None:
        self.broker.recreate()
        self.messages.clear()
        self.life += 1

    @rule(keep=st.integers(1, 3))
    def compact(self, keep: int) -> None:
        for partition_worker in self.worker._partition_workers.values():
            compact(partition_worker.log, keep=keep)

    @rule()
    def build(self) -> None:
        with self.world.backfiller(self.writer) as backfiller:
            backfiller.build(VIEW)

    @rule()
    def tidy(self) -> None:
        self.world.housekeeper(self.writer).retire(VIEW)

    @rule()
    def check(self) -> None:
        drain(self.worker)
        look(self.worker)
        self.world.check()
        logged = self.world.logged()
        for name, sent in self.sent.items():
            rows = logged.get(name, [])
            # Of a life that ended nobody knows how much was read of it.
            whole = name.split("/")[2] == f"m{self.life}"
            expected = sent.rows if whole else sent.rows[: len(rows)]
            assert [row["event"] if row[REJECT] is None else None for row in rows] == [
                row and row["event"] for row in expected
            ]
        t = self.world.clock.now_us() // 1_000 * 1_000
        assert self.world.online(t).bits == brute(VIEW, self._counted({name: len(r) for name, r in logged.items()}), t)

    def teardown(self) -> None:
        self.check()
        self.worker.close()
        self.writer.close()
        self.folder.cleanup()

    def _hire(self) -> Worker:
        return self.world.worker(self.writer, lambda owner: MemoryStream(self.broker, owner), max_rows=7)

    def _put(self, index: int, message: bytes | None) -> None:
        self.broker.append(index, message)
        self.messages.append((index, message))
        self.sent.setdefault(f"events/s/m{self.life}/{index}", SentEvents()).take(message)

    def _counted(self, ends: dict[str, int]) -> list[Event]:
        return [
            _event(name, seq, row)
            for name, sent in self.sent.items()
            for seq, row in enumerate(sent.rows[: ends.get(name, 0)])
            if row is not None
        ]


def _event(partition: str, seq: int, row: dict[str, Any]) -> Event:
    assert 0 <= row["id"] < IDS
    values: dict[str, Value] = {name: row[name] for name in INPUTS}
    return Event(key=(row["id"],), ts=row["ts"], partition=signed(partition), seq=seq, values=values)


def test_3_6_4_3_online_states_are_what_was_sent_whatever_happens(
    valkey: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LINGER_S", "_RETRY_S", "_CHECK_S"):
        monkeypatch.setattr(f"skewless.infra.ingest.streams.worker.{name}", 0.0)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 3)
    # An example takes half a second.
    few = settings(max_examples=max(1, settings().max_examples // 10), stateful_step_count=20)
    machine: Any = lambda: StreamWorkerMachine(valkey)  # noqa: E731 - hypothesis asks for a class, and calls it
    run_state_machine_as_test(machine, settings=few)
