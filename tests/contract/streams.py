"""Streams under test: where they are, and workers that log what they read, as an ingest does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol
from zlib import crc32

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from skewless.infra.ingest.streams.port import EventSender, EventStream, Partition, RebalanceListener
from skewless.infra.ingest.streams.redis_link import RedisSender
from skewless.infra.ingest.streams.redis_stream import RedisStream
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.clients import RedisAddress, close_client, open_client
from skewless_kafka.client import KafkaSender
from skewless_kafka.stream import KafkaStream
from tests.memory_stream import MemoryBroker, MemorySender, MemoryStream
from tests.servers.cluster import Cluster
from tests.servers.kafka import KafkaBroker
from tests.servers.node import Node
from tests.worlds.waiting import PATIENCE_S

N = 4
LEASE_S = 1.0
QUICK = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 200, "reconnect.backoff.max.ms": 200}


class StreamKind(Protocol):
    """One stream of ``N`` partitions, empty at first; ``late_s``: for how long it may not know what has arrived."""

    late_s: float

    def stream(self, owner: RebalanceListener, group: str) -> EventStream: ...
    def sender(self) -> EventSender: ...
    def send_nothing(self) -> None:
        """Send one message without a body."""

    def committed(self, group: str) -> dict[int, int]:
        """Return what a group has committed, by partition."""
        ...

    def recreate(self) -> None:
        """Delete the stream, and make it again."""

    def away(self) -> None: ...
    def back(self) -> None: ...


class MemoryPlace:
    late_s = 0.0

    def __init__(self) -> None:
        self._broker = MemoryBroker(N)

    def stream(self, owner: RebalanceListener, group: str) -> EventStream:
        return MemoryStream(self._broker, owner, group=group)

    def sender(self) -> EventSender:
        return MemorySender(self._broker)

    def send_nothing(self) -> None:
        self._broker.append(0, None)

    def committed(self, group: str) -> dict[int, int]:
        return {int(partition.name): at for partition, at in self._broker.committed(group).items()}

    def recreate(self) -> None:
        self._broker.recreate()

    def away(self) -> None:
        self._broker.away = True

    def back(self) -> None:
        self._broker.away = False


class RedisPlace:
    late_s = 0.0

    def __init__(self, server: Node | Cluster, folder: Path) -> None:
        self.server = server
        self.database = ProjectState(folder).database
        self.url = server.url
        self.source = uuid.uuid4().hex

    def stream(self, owner: RebalanceListener, group: str, keep: int | None = None) -> RedisStream:
        return RedisStream(
            self.url,
            database=self.database,
            project="p",
            source=self.source,
            n_partitions=N,
            owner=owner,
            group=group,
            lease_s=LEASE_S,
            keep=keep,
            timeout_s=1.0,
        )

    def sender(self) -> EventSender:
        return RedisSender(self.url, project="p", source=self.source, n_partitions=N, timeout_s=1.0)

    def key(self, index: int, suffix: str = "") -> str:
        return f"sk:p:events:{{{self.source}:{index}}}{suffix}"

    def ask(self, *words: str | int | bytes) -> object:
        client = open_client(RedisAddress.parse(self.url), 5.0)
        try:
            return client.execute_command(*words)
        finally:
            close_client(client)

    def send_nothing(self) -> None:
        self.ask("XADD", self.key(0), "*", "other", "x")

    def committed(self, group: str) -> dict[int, int]:
        found = {index: self.ask("HGET", self.key(index, ":committed"), group) for index in range(N)}
        return {index: int(str(at, "ascii")) for index, at in found.items() if isinstance(at, bytes) and at != b"0"}

    def recreate(self) -> None:
        if isinstance(self.server, Node):
            self.server.ask("FLUSHALL")
        else:
            self.server.flush()

    def away(self) -> None:
        assert isinstance(self.server, Node)
        self.server.kill()

    def back(self) -> None:
        assert isinstance(self.server, Node)
        self.server.start()


class KafkaPlace:
    late_s = 1.0

    def __init__(self, broker: KafkaBroker) -> None:
        self.broker = broker
        self.settings: Mapping[str, str] = {}
        self.topic = f"t{uuid.uuid4().hex}"
        broker.make(self.topic, N)

    def stream(self, owner: RebalanceListener, group: str) -> KafkaStream:
        return KafkaStream(
            self.broker.bootstrap,
            self.topic,
            owner=owner,
            group=group + self.topic,
            settings={**QUICK, **self.settings},
        )

    def sender(self) -> EventSender:
        return KafkaSender(self.broker.bootstrap, self.topic, settings=self.settings, timeout_s=2.0)

    def send_nothing(self) -> None:
        producer = Producer({"bootstrap.servers": self.broker.bootstrap})
        producer.produce(self.topic, value=None)
        assert producer.flush(10) == 0

    def committed(self, group: str) -> dict[int, int]:
        consumer = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": group + self.topic})
        try:
            found = consumer.committed([TopicPartition(self.topic, index) for index in range(N)], timeout=10)
        finally:
            consumer.close()
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def recreate(self) -> None:
        self.broker.delete(self.topic)
        self.broker.make(self.topic, N)

    def away(self) -> None:
        self.broker.stop()

    def back(self) -> None:
        self.broker.start()


@dataclass
class Log:
    """The messages that were read, by partition, and the owners; shared by all workers of a group."""

    read: dict[Partition, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    owners: dict[Partition, Worker] = field(default_factory=dict)

    def payloads(self) -> list[bytes | None]:
        return [payload for entries in self.read.values() for _, payload in entries]

    def in_any_order(self) -> list[bytes]:
        """Return all bodies, sorted; each message must have one."""
        return sorted(payload for payload in self.payloads() if payload is not None)

    def has(self, n: int) -> Callable[[], bool]:
        """Return a condition: that so many messages were read."""
        return lambda: len(self.payloads()) >= n

    def assert_in_order(self) -> None:
        for entries in self.read.values():
            assert all(a < b for (a, _), (b, _) in pairwise(entries))


class Worker:
    """A member of a group, which continues at the end of the log."""

    def __init__(self, place: StreamKind, log: Log, group: str = "g") -> None:
        self.log = log
        self.revocations: list[Partition] = []
        self.losses: list[tuple[str, str]] = []
        self.stream = place.stream(self, group)

    @property
    def owned(self) -> set[Partition]:
        return {partition for partition, owner in self.log.owners.items() if owner is self}

    def on_assigned(self, partition: Partition) -> int | None:
        assert partition not in self.log.owners
        self.log.owners[partition] = self
        entries = self.log.read.setdefault(partition, [])
        return entries[-1][0] + 1 if entries else None

    def on_revoked(self, partition: Partition) -> None:
        assert self.log.owners.pop(partition) is self
        self.revocations.append(partition)

    def on_stepped_back(self, partition: Partition, last: str, first: int) -> set[int]:
        self.losses.append((partition.name, last))
        return {at for at, _ in self.log.read[partition] if at >= first}

    def poll(self, limit: int = 1_000, timeout_s: float = 0.05) -> int:
        found = self.stream.poll(limit, timeout_s)
        assert set(self.stream.find_drained()) <= self.owned
        assert len({messages.partition for messages in found}) == len(found)
        for messages in found:
            assert self.log.owners[messages.partition] is self
            assert len(messages.positions) == len(messages.payloads) > 0
            assert min(messages.positions) >= 0
            self.log.read[messages.partition] += zip(messages.positions, messages.payloads, strict=True)
        return sum(len(messages.positions) for messages in found)

    @property
    def all_drained(self) -> bool:
        return set(self.stream.find_drained()) == self.owned and len(self.owned) > 0

    def next_positions(self) -> dict[Partition, int]:
        return {p: self.log.read[p][-1][0] + 1 for p in self.owned if self.log.read[p]}


def poll_until(workers: Sequence[Worker], condition: Callable[[], object]) -> None:
    """Poll all workers in turn until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, [worker.stream.trouble for worker in workers]
        for worker in workers:
            worker.poll()


# What is peculiar to streams of Redis is tested with Valkey.
PLACES = ["memory", pytest.param("valkey", marks=pytest.mark.soak), "redis", "cluster", "kafka"]


def place_of(request: pytest.FixtureRequest) -> StreamKind:
    """Return the place that a fixture's parameter names."""
    if request.param == "memory":
        return MemoryPlace()
    if request.param == "kafka":
        return KafkaPlace(request.getfixturevalue("kafka"))
    fixtures = {"valkey": "valkey", "redis": "redis_8", "cluster": "three_nodes"}
    made = RedisPlace(request.getfixturevalue(fixtures[request.param]), request.getfixturevalue("tmp_path"))
    made.recreate()
    return made


def send(place: StreamKind, payloads: list[bytes], keys: list[str] | None = None) -> None:
    sender = place.sender()
    sender.send(payloads, keys)
    sender.close()


def numbered(n: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + n)]


def spread(n: int) -> list[str]:
    """Return keys that reach every partition, whichever hash spreads them."""
    return [f"k{crc32(b'%d' % number) % 97}" for number in range(n)]
