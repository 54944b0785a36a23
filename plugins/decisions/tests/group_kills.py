"""Workers of one consumer group that decide and deliver to every kind of sink, under the eyes of ``kills``."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

import skewless.infra.ingest.streams.worker
import skewless_decisions.delivery
from plugins.decisions.tests.asked_server import AskedServer
from plugins.decisions.tests.deciding import ALL, DecidingWorld
from plugins.decisions.tests.decision_kills import has_more, quicken, supervise, work
from skewless.contract.clock import OffsetClock
from skewless.contract.columns import Transform
from skewless.contract.decisions import CONDITION_OUTPUTS
from skewless.contract.errors import StoreError
from skewless.contract.sinks import KafkaSink, ParquetSink, RedisStreamSink, Sink
from skewless.infra.ingest.streams.port import EventSender, OpenStream, Partition
from skewless.infra.ingest.streams.redis_link import RedisSender
from skewless.infra.ingest.streams.redis_stream import RedisStream
from skewless.infra.ingest.streams.worker import Worker
from skewless_decisions.deliveries import read_sinks
from skewless_decisions.message_sinks import KafkaDelivery, RedisDelivery
from skewless_decisions.opening import Deciders
from skewless_decisions.parquet_sink import ParquetDelivery
from skewless_kafka.client import KafkaSender
from skewless_kafka.stream import KafkaStream
from tests.reliability.kills import Steps
from tests.reliability.losses import DURABLE
from tests.reliability.stream_kills import watch_states
from tests.servers.kafka import KafkaBroker, KafkaCluster, kafka_broker, kafka_cluster
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.plans import refs
from tests.worlds.streams import BASE, SOURCE, Traffic
from tests.worlds.waiting import PATIENCE_S

PARTITIONS = 4
LINGER_S = 0.01
_STEP_US = 7_000_000  # a soak must end before the ids of its first events are forgotten
_TOPIC, _DECIDED, _STREAM = "events", "decided", "decisions"
_QUICK = {
    "session.timeout.ms": 6_000,
    "max.poll.interval.ms": 6_000,  # a new member waits so long for those that have died
    "heartbeat.interval.ms": 200,
    "reconnect.backoff.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 500,
}
_SINKS = {"kafka": KafkaDelivery, "redis": RedisDelivery, "parquet": ParquetDelivery}
_POSITIVE = Transform(
    name="positive",
    function="f",
    source="def f(event):\n    return event['x'] > 0\n",
    inputs=refs(*(f"event.{column.name}" for column in SOURCE.readable)),
    outputs=CONDITION_OUTPUTS,
)
Message = tuple[str, Any]  # id of a decision, and its fields


def group_world(root: Path, url: str, events: str, **parts: Any) -> DecidingWorld:  # noqa: ANN401 - of the world
    """Return a project with two decision streams, whose decisions go to each kind of sink that there is.

    Args:
        url: of the store.
        events: URL of the Redis with the events, or Kafka's servers, which are also those of a sink.
    """
    sinks: tuple[Sink, ...] = (
        RedisStreamSink(name="redis", stream=_STREAM, batch=7, timeout_s=1.0),
        ParquetSink(name="parquet", batch=7, every_s=0.2),
    )
    if not _is_redis(events):
        sinks = (KafkaSink(name="kafka", topic=_DECIDED, servers=events, key="id", batch=7, timeout_s=2.0), *sinks)
    streams = replace(ALL, sinks=sinks), replace(ALL, name="positive", when=_POSITIVE, sinks=sinks)
    clock = OffsetClock.create(root / "clock")
    return DecidingWorld(root=root, url=url, decisions=streams, clock=clock, **parts)


def _place_of(broker: KafkaBroker | Node) -> str:
    return broker.url if isinstance(broker, Node) else broker.bootstrap


def _is_redis(events: str) -> bool:
    return events.startswith("redis:")


def open_events(deciding: DecidingWorld, events: str, settings: Mapping[str, Any]) -> OpenStream:
    """Join the group of the workers.

    Args:
        settings: of Kafka's client.
    """
    if not _is_redis(events):
        return lambda owner: KafkaStream(events, _TOPIC, owner=owner, group="workers", settings=settings)
    return lambda owner: RedisStream(
        events,
        database=deciding.state.database,
        project=deciding.root.name,
        source=SOURCE.name,
        n_partitions=PARTITIONS,
        owner=owner,
        lease_s=3.0,
        timeout_s=1.0,
    )


@dataclass(kw_only=True)
class DecidingGroup:
    """The servers of a project, and what is sent to it; ``seed``: of all chance."""

    seed: int
    deciding: DecidingWorld
    store: Node
    sink: Node
    broker: KafkaBroker | Node
    server: AskedServer
    traffic: Traffic

    @property
    def events(self) -> str:
        """Where the events are."""
        return _place_of(self.broker)

    def feed(self, n: int) -> None:
        """Send events, again and again until the broker has confirmed them."""
        clock, deadline = self.deciding.clock, time.monotonic() + PATIENCE_S
        clock.set(clock.now_us() + _STEP_US)
        pairs = self.traffic.make(n, clock.now_us())
        while True:
            sender = self._sender()
            try:
                sender.send([message for _, message in pairs], [str(key) for key, _ in pairs])
            except StoreError:
                assert time.monotonic() < deadline
            else:
                return
            finally:
                sender.close()

    def _sender(self) -> EventSender:
        if not isinstance(self.broker, Node):
            return KafkaSender(self.events, _TOPIC, timeout_s=2.0)
        project = self.deciding.root.name
        return RedisSender(self.events, project=project, source=SOURCE.name, n_partitions=PARTITIONS, timeout_s=2.0)

    def victim(self, name: str, chance: random.Random) -> Node | KafkaBroker | AskedServer:
        """Return a server by its name; of a cluster, any broker, once all replicas are in sync: one dies at a time."""
        if name == "broker" and isinstance(self.broker, KafkaCluster):
            self.broker.wait_for_replicas(_TOPIC, _DECIDED)
            return chance.choice(self.broker.nodes)
        victim: Node | KafkaBroker | AskedServer = getattr(self, name)
        return victim

    def order(self, leave_s: float) -> dict[str, Any]:
        """Return the order to work for so long, and then to leave the group."""
        return {
            "root": str(self.deciding.root),
            "url": self.store.url,
            "events": self.events,
            "sink_url": self.sink.url,
            "leave_s": leave_s,
        }

    def finish(self) -> None:
        """Take, decide, apply and deliver all that was sent."""

        def has_rest(worker: Worker, deciders: Deciders) -> bool:
            is_owner = len(worker._partition_workers) == PARTITIONS
            if not is_owner or has_more(worker, deciders):
                return True
            sinks = read_sinks(self.deciding.state, self.deciding.decisions, self.deciding.clock.now_us())
            return any(sink.waiting for sink in sinks) or not self.traffic.arrived(self.deciding)

        # It looks at all logs between two polls, which may take long.
        stream, patience_s = open_events(self.deciding, self.events, {}), 5 * PATIENCE_S
        work(self.deciding, stream, has_rest, max_rows=1_000, patience_s=patience_s)

    def check(self) -> int:
        """Assert that each event was decided once, as the oracle does, and delivered; return the repetitions."""
        deciding = self.deciding
        self.server.finish()
        self.traffic.check(deciding)
        assert deciding.check_decisions() == len(self.traffic.good)
        assert deciding.check_decisions("positive", lambda event, _: (event["x"] or 0.0) > 0) > 0
        deciding.check()
        rows = [row for row in deciding._rows() if row["role"] != "shadow"]
        answered = Counter(row["id"] for row in rows if row["event"] is None)
        assert set(self.server.ids) <= answered.keys(), "a prediction was answered, and is not logged"
        assert max(answered.values()) == 1, "a prediction is logged twice"
        assert deciding.replayed.compared == len(rows), "a prediction was not proven"
        logged = [row for row in rows if row["event"] is not None]
        place = {row["id"]: at for at, row in enumerate(logged)}
        assert len(place) == len(logged), "two decisions have one id"
        scores = {row["id"]: row["score"] for row in logged}
        files = self._delivered_files()
        assert [name for name, _ in files] == list(place), "the files differ from the log"
        repeated = 0
        entries = self._delivered_entries()
        kafka = [] if isinstance(self.broker, Node) else [self._delivered_messages(self.broker)]
        for sink, received in enumerate(([entries], [files], *kafka)):
            seen: dict[str, Any] = {}
            for lane in received:
                firsts = [place[name] for name in dict.fromkeys(name for name, _ in lane)]
                wrong = [pair for pair in pairwise(firsts) if pair[0] > pair[1]]
                assert not wrong, f"decisions were delivered in another order than that of the log: {sink}, {wrong}"
                for name, message in lane:
                    assert seen.setdefault(name, message) == message, "a repeated decision differs"
                    assert message["score"] == scores[name]
                repeated += len(lane) - len(firsts)
            assert seen.keys() == place.keys(), "a decision was not delivered"
        return repeated

    def moves(self) -> int:
        """Return how often a partition went from one worker to another."""
        owners: dict[str, list[str]] = {}
        for line in (self.deciding.root / "owners").read_text().splitlines():
            partition, pid = line.split()
            owners.setdefault(partition, []).append(pid)
        return sum(a != b for pids in owners.values() for a, b in pairwise(pids))

    def _delivered_entries(self) -> list[Message]:
        with self.sink.client() as client:
            entries: Any = client.xrange(_STREAM)
        return [(fields[b"id"].decode(), orjson.loads(fields[b"decision"])) for _, fields in entries]

    @staticmethod
    def _delivered_messages(broker: KafkaBroker) -> list[list[Message]]:
        lanes = [[orjson.loads(message) for message in lane] for lane in broker.read(_DECIDED)]
        return [[(body["id"], body) for body in lane] for lane in lanes]

    def _delivered_files(self) -> list[Message]:
        files = sorted((self.deciding.root / "decisions" / "parquet").glob("*.parquet"))
        return [(row["id"], row) for file in files for row in pq.ParquetFile(file).read().to_pylist()]


@contextmanager
def deciding_group(folder: Path, kind: str, seed: int) -> Iterator[DecidingGroup]:
    """Run the servers of a new project for the length of a block; ``kind``: of the source of events."""
    nodes = [Node(program("valkey"), folder / name, DURABLE) for name in ("store", "sink", "events")]
    source: AbstractContextManager[KafkaBroker | Node] = running(nodes[2])
    if kind != "redis":
        source = (kafka_cluster if kind == "cluster" else kafka_broker)(folder / "kafka")
    with running(nodes[0]) as store, running(nodes[1]) as sink, source as broker:
        if isinstance(broker, KafkaBroker):
            broker.make(_TOPIC, PARTITIONS)
            broker.make(_DECIDED, 2)
        deciding = group_world(folder / "project", store.url, _place_of(broker), broker_url=sink.url, log="required")
        deciding.clock.set(BASE)
        deciding.publish()
        deciding.ensure()
        server = AskedServer(deciding.root, store.url)
        server.start()
        try:
            yield DecidingGroup(
                seed=seed,
                deciding=deciding,
                store=store,
                sink=sink,
                broker=broker,
                server=server,
                traffic=Traffic(seed),
            )
        finally:
            server.finish()


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Work in the group until it is time to leave."""
    quicken()
    skewless.infra.ingest.streams.worker._LINGER_S = LINGER_S
    skewless_decisions.delivery._LEASE_S = 0.1
    skewless_decisions.delivery._LAST_RETRY_S = 0.5
    root, leave_at = Path(order["root"]), time.monotonic() + order["leave_s"]
    deciding = group_world(root, order["url"], order["events"], broker_url=order["sink_url"])
    steps.watch(root)
    watch_states(steps)
    for kind_of_stream in (KafkaStream, RedisStream):
        steps.wrap(kind_of_stream, "commit", lambda _, positions: "commit" if positions else "")
    for kind, adapter in _SINKS.items():
        steps.wrap(adapter, "send", lambda *_, kind=kind: f"send-{kind}")
    _note_owners(root / "owners")
    stream = open_events(deciding, order["events"], _QUICK)
    supervise(lambda: work(deciding, stream, lambda *_: time.monotonic() < leave_at))


def _note_owners(path: Path) -> None:
    """Write to a file to which worker each partition goes."""
    real: Callable[[Worker, Partition], int | None] = Worker.on_assigned

    def on_assigned(self: Worker, partition: Partition) -> int | None:
        with path.open("a") as file:
            file.write(f"{partition.name} {os.getpid()}\n")
        return real(self, partition)

    Worker.on_assigned = on_assigned  # type: ignore[method-assign]
