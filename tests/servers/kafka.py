"""A broker of Apache Kafka on a free port, three as a cluster, or the one that KAFKA_BOOTSTRAP names."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.node import _KILL_WITH_PARENT
from tests.systems import note_kafka
from tests.worlds.built_once import built_once
from tests.worlds.waiting import until

_VARIABLE = "KAFKA_BOOTSTRAP"
_JARS = Path(f"{sys.prefix}-kafka")
_PORTS = range(26_000, 29_000)
_CONTROLLER = 3_000  # the port of the controller is that much higher
NODES = 3  # of a cluster
_TRIES = 20
_ANSWER_S = 10.0
_END = KafkaError._PARTITION_EOF
_random = random.SystemRandom()
# Starting counts, not running.
_JAVA = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto"]
# A node is broker and controller; a single one keeps one replica of all.
_PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
log.dirs={folder}/data
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.backoff.ms=200
"""
# Two replicas have what is confirmed, and one may die.
_CLUSTER = """
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
replica.lag.time.max.ms=5000
controlled.shutdown.enable=true
"""
_LOGGING = """
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
"""
# Ends a program with a process that is not its parent.
_KILL_WITH = 'ends=$1; shift; "$@" & while kill -0 $ends && kill -0 $!; do sleep 0.5; done 2>/dev/null; kill -9 $!'


class KafkaBroker:
    """A broker at an address.

    Args:
        folder: its data, where the tests started it, so that they can stop it too.
        properties: of the broker, beyond ``_PROPERTIES``, with the same places for values.
        client: settings of the clients of this class.
        node: its number in a cluster.
    """

    n_replicas = 1  # of a topic

    def __init__(
        self,
        bootstrap: str = "",
        folder: Path | None = None,
        *,
        properties: str = "",
        client: Mapping[str, str] | None = None,
        node: int = 1,
    ) -> None:
        self.bootstrap = bootstrap
        self._folder = folder
        self._node, self._voters = node, ""
        self._cluster_id = uuid.uuid4().hex[:22]
        self._properties = _PROPERTIES + properties
        self._client = client or {}
        self._process: subprocess.Popen[bytes] | None = None

    def make(
        self, topic: str, n_partitions: int = 4, *, most_bytes: int | None = None, config: dict[str, str] | None = None
    ) -> None:
        """Make a topic, and wait until it is there.

        Args:
            most_bytes: in one batch of messages; the broker refuses larger ones.
            config: of the topic.
        """
        admin, config = self.admin(), config or {}
        if most_bytes is not None:
            config = {**config, "max.message.bytes": str(most_bytes)}
        new = NewTopic(topic, n_partitions, self.n_replicas, config=config)
        admin.create_topics([new])[topic].result(_ANSWER_S)
        until(lambda: topic in admin.list_topics(timeout=_ANSWER_S).topics)

    def delete(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(_ANSWER_S)
        until(lambda: topic not in admin.list_topics(timeout=_ANSWER_S).topics)

    def read(self, topic: str) -> list[list[bytes]]:
        """Return the messages of each partition of a topic, in their order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": uuid.uuid4().hex,
                "enable.partition.eof": True,
                **self._client,
            }
        )
        n_partitions = len(self.admin().list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions)
        found: list[list[bytes]] = []
        for index in range(n_partitions):
            consumer.assign([TopicPartition(topic, index, 0)])
            messages: list[bytes] = []
            while (message := consumer.poll(_ANSWER_S)) is not None:
                error = message.error()
                if error is not None and error.code() == _END:
                    break
                assert error is None, error
                messages.append(message.value() or b"")
            else:
                raise AssertionError(f"partition {index} has no end after {len(messages)} messages")
            found.append(messages)
        consumer.close()
        return found

    def admin(self) -> AdminClient:
        """Return a client that administers the broker."""
        return AdminClient({"bootstrap.servers": self.bootstrap, **self._client})

    def start(self, ends_with: int | None = None) -> None:
        """Start on the port of last time, or on a free one.

        Args:
            ends_with: process with which the broker ends; None: the thread that calls.
        """
        for port in [int(self.bootstrap.rpartition(":")[2])] if self.bootstrap else _random.sample(_PORTS, _TRIES):
            self._launch(port, ends_with)
            if self._is_up():
                return
        raise AssertionError(f"Kafka did not start:\n{self.last_words()}")

    def run_tool(self, *words: str) -> None:
        """Run a program of Kafka until it has succeeded."""
        assert self._java(*words).wait(120) == 0, self.last_words()

    def last_words(self) -> str:
        """Return the end of the broker's log."""
        assert self._folder is not None
        return (self._folder / "server.log").read_text()[-4_000:]

    def stop(self) -> None:
        """Shut the broker down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the broker; what it has confirmed is in the kernel's buffers."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the broker hang, with all its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a broker that hangs go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def leave(self) -> None:
        """Let the broker run on without this process."""
        assert self._process is not None
        self._process.returncode = 0  # else its end is waited for, with a warning

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)

    def _launch(self, port: int, ends_with: int | None) -> None:
        """Start a process for a port that may be taken."""
        assert self._folder is not None
        self.bootstrap = f"127.0.0.1:{port}"
        self._folder.mkdir(parents=True, exist_ok=True)
        controller = port + _CONTROLLER
        voters = self._voters or f"{self._node}@127.0.0.1:{controller}"
        places = {"port": port, "controller": controller, "folder": self._folder, "node": self._node, "voters": voters}
        (self._folder / "server.properties").write_text(self._properties.format(**places))
        (self._folder / "log4j2.properties").write_text(_LOGGING)
        if not (self._folder / "data").exists():
            formatting = self._java(
                "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", "server.properties"
            )
            assert formatting.wait(120) == 0, self.last_words()
        watch = [] if ends_with is None else ["/bin/sh", "-c", _KILL_WITH, "sh", str(ends_with)]
        self._process = self._java("kafka.Kafka", "server.properties", watch=watch)

    def _is_up(self) -> bool:
        """Return whether the process answers, once it does or has ended."""
        process = self._process
        assert process is not None
        until(lambda: process.poll() is not None or self._answers())
        return process.poll() is None

    def _java(self, *words: str, watch: list[str] | None = None) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        java = [find_java(), *_JAVA, "-Dlog4j2.configurationFile=log4j2.properties", "-cp", f"{_JARS}/*", *words]
        with (self._folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                [*(watch or []), sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, *java],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _answers(self) -> bool:
        settings = {
            "bootstrap.servers": self.bootstrap,
            "log_level": "0",
            "reconnect.backoff.max.ms": "100",
            **self._client,
        }
        try:
            return bool(AdminClient({**settings}).list_topics(timeout=2.0).brokers)
        except KafkaException:
            return False


class KafkaCluster(KafkaBroker):
    """Three brokers that keep three replicas of each topic; the arguments are those of ``KafkaBroker``."""

    n_replicas = NODES

    def __init__(self, folder: Path, *, properties: str = "", client: Mapping[str, str] | None = None) -> None:
        super().__init__(properties=properties, client=client)
        self.nodes = [
            KafkaBroker(folder=folder / f"{node}", properties=_CLUSTER + properties, client=client, node=node)
            for node in range(1, NODES + 1)
        ]
        for node in self.nodes:
            node._cluster_id = self._cluster_id

    def start(self, ends_with: int | None = None) -> None:
        """Start all brokers on the ports of last time, or on free ones."""
        known = [int(self.nodes[0].bootstrap.rpartition(":")[2])] if self.bootstrap else []
        for first in known or _random.sample(_PORTS, _TRIES):
            ports = range(first, first + NODES)
            voters = ",".join(f"{node}@127.0.0.1:{port + _CONTROLLER}" for node, port in enumerate(ports, 1))
            for node, port in zip(self.nodes, ports, strict=True):
                node._voters = voters
                node._launch(port, ends_with)
            if all(node._is_up() for node in self.nodes):
                break
            self.kill()
        else:
            raise AssertionError(f"Kafka did not start:\n{self.nodes[0].last_words()}")
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes)
        self.wait_for_brokers(NODES)

    def stop(self) -> None:
        """Shut all brokers down."""
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        """Kill all brokers."""
        for node in self.nodes:
            node.kill()

    def wait_for_brokers(self, n: int) -> None:
        """Wait until so many brokers are in the cluster."""
        admin = self.admin()
        until(lambda: len(admin.list_topics(timeout=_ANSWER_S).brokers) == n)

    def wait_for_replicas(self, *topics: str) -> None:
        """Wait until all replicas of these topics are in sync, so that each broker may die."""
        admin = self.admin()

        def are_in_sync() -> bool:
            found = admin.list_topics(timeout=_ANSWER_S).topics
            return all(len(part.isrs) == NODES for name in topics for part in found[name].partitions.values())

        until(are_in_sync)

    def leader(self, topic: str, partition: int = 0) -> KafkaBroker:
        """Return the broker that leads a partition."""
        leader = self.admin().list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions[partition].leader
        return self.nodes[leader - 1]


def is_installed() -> bool:
    """Return whether this machine has Java and Kafka."""
    return shutil.which("java") is not None and (_JARS / ".requirements.stamp").exists()


def find_java() -> str:
    """Return the program; the test is skipped where Java or Kafka is missing."""
    java = find_program(_JARS, "Apache Kafka", "setup-kafka")
    note_kafka(java, _JARS)
    return java


def find_program(folder: Path, name: str, target: str) -> str:
    """Return Java; the test is skipped where it, or what a target of make puts into a folder, is missing."""
    java = shutil.which("java")
    if java is None or not (folder / ".requirements.stamp").exists():
        pytest.skip(f"needs {name}: make {target}, with Java 17 and Maven")
    return java


@contextmanager
def kafka_broker(
    folder: Path, *, properties: str = "", client: Mapping[str, str] | None = None
) -> Iterator[KafkaBroker]:
    """Run a broker of our own for the length of a block; the arguments are those of ``KafkaBroker``."""
    broker = KafkaBroker(folder=folder, properties=properties, client=client)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextmanager
def kafka_cluster(folder: Path, *, properties: str = "") -> Iterator[KafkaCluster]:
    """Run three brokers for the length of a block; the arguments are those of ``KafkaBroker``."""
    cluster = KafkaCluster(folder, properties=properties)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def shared_broker(factory: pytest.TempPathFactory) -> KafkaBroker:
    """Return the broker that all workers of a run share; it ends with the run."""
    find_java()
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()

    def build(folder: Path) -> None:
        broker = KafkaBroker(folder=folder)
        broker.start(run)
        broker.leave()
        (folder / "bootstrap").write_text(broker.bootstrap)

    return KafkaBroker((built_once(factory, "kafka", build) / "bootstrap").read_text())


def named_broker() -> KafkaBroker | None:
    """Return the broker that the environment names, None where it names none."""
    found = os.environ.get(_VARIABLE)
    return KafkaBroker(found) if found else None
