"""A broker that speaks Kafka: noida-db on a free port, or the one that KAFKA_BOOTSTRAP names.

noida-db keeps its topics over a stop, not over a kill. It tells no topic ids.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.node import _KILL_WITH_PARENT
from tests.servers.proxy import Proxy
from tests.worlds.waiting import until

_VARIABLE = "KAFKA_BOOTSTRAP"
_PORTS = range(26_000, 31_000)
_TRIES = 20
_ANSWER_S = 10.0
_random = random.SystemRandom()


class KafkaBroker:
    """A broker at an address; ``folder``: its data where the tests started it, so that they can stop it too."""

    host = "127.0.0.1"

    def __init__(self, bootstrap: str = "", folder: Path | None = None) -> None:
        self.bootstrap = bootstrap
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def make(self, topic: str, n_partitions: int = 4, *, most_bytes: int | None = None) -> None:
        """Make a topic, and wait until it is there.

        Args:
            most_bytes: in one batch of messages; the broker refuses larger ones.
        """
        admin, config = self._admin(), {} if most_bytes is None else {"max.message.bytes": str(most_bytes)}
        admin.create_topics([NewTopic(topic, n_partitions, 1, config=config)])[topic].result(_ANSWER_S)
        until(lambda: topic in admin.list_topics(timeout=_ANSWER_S).topics)

    def delete(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        admin = self._admin()
        admin.delete_topics([topic])[topic].result(_ANSWER_S)
        until(lambda: topic not in admin.list_topics(timeout=_ANSWER_S).topics)

    def read(self, topic: str) -> list[list[bytes]]:
        """Return the messages of each partition of a topic, in their order."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": uuid.uuid4().hex})
        partitions = [
            TopicPartition(topic, index, 0)
            for index in sorted(self._admin().list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions)
        ]
        found: list[list[bytes]] = []
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(partition, timeout=_ANSWER_S)
            consumer.assign([partition])
            messages = consumer.consume(high - low, _ANSWER_S) if high > low else []
            assert len(messages) == high - low, f"{len(messages)} of {high - low} messages"
            found.append([message.value() or b"" for message in messages])
        consumer.close()
        return found

    def start(self) -> None:
        """Start on the port of last time, or on a free one."""
        for port in [int(self.bootstrap.rpartition(":")[2])] if self.bootstrap else _random.sample(_PORTS, _TRIES):
            self.bootstrap = f"{self.host}:{port}"
            if self._started(port):
                return
        raise AssertionError("noida-db did not start")

    def stop(self) -> None:
        """Shut the broker down; it keeps its topics."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def freeze(self) -> None:
        """Let the broker hang, with all its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a broker that hangs go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def _started(self, port: int) -> bool:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        with as_file(files("noida_db") / "noida-db") as program, (self._folder / "server.log").open("ab") as log:
            if not os.access(program, os.X_OK):
                program.chmod(0o755)
            options = ["start", "--only", "kafka", "--data-dir", str(self._folder / "data")]
            options += ["--host", self.host, "--kafka-port", str(port)]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _KILL_WITH_PARENT, str(program), *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self._process
        until(lambda: process.poll() is not None or self._answers())
        return process.poll() is None

    def _answers(self) -> bool:
        try:
            return bool(self._admin().list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False


class MortalBroker:
    """A broker that keeps what it has confirmed over a kill, as Kafka does, whose messages the kernel has.

    noida-db saves its topics later, so its clients are cut off first: to them, it dies in the middle of their requests.
    """

    def __init__(self, folder: Path) -> None:
        self.kafka = _HiddenBroker(folder=folder)
        self.kafka.start()
        port = int(self.kafka.bootstrap.rpartition(":")[2])
        self._proxy = Proxy(port, self.kafka.host, port)
        self.bootstrap = f"127.0.0.1:{port}"

    def start(self) -> None:
        """Start again."""
        self.kafka.start()
        self._proxy.start()

    def kill(self) -> None:
        """End all connections, and then the broker."""
        self._proxy.kill()
        self.kafka.stop()


class _HiddenBroker(KafkaBroker):
    host = "127.0.0.2"


@contextmanager
def mortal_broker(folder: Path) -> Iterator[MortalBroker]:
    """Run a broker that may be killed for the length of a block."""
    broker = MortalBroker(folder)
    broker._proxy.start()
    try:
        yield broker
    finally:
        broker.kill()


@contextmanager
def kafka_broker(folder: Path) -> Iterator[KafkaBroker]:
    """Run a broker of our own for the length of a block."""
    broker = KafkaBroker(folder=folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def named_broker() -> KafkaBroker | None:
    """Return the broker that the environment names, None where it names none."""
    found = os.environ.get(_VARIABLE)
    return KafkaBroker(found) if found else None
