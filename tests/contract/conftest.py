"""Real servers for all contract tests, started when first needed, emptied before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers.cluster import Cluster
from tests.servers.kafka import KafkaBroker, kafka_broker, named_broker
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.servers.sentinels import SentinelSet, sentinel_set


@pytest.fixture(scope="session")
def redis_8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(program("redis"), tmp_path_factory.mktemp("redis"))) as node:
        yield node


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    with sentinel_set(program("valkey"), tmp_path_factory.mktemp("watched")) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    named = named_broker()
    if named:
        yield named
        return
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def valkey_emptied(valkey: Node) -> Callable[[], str]:
    return lambda: (valkey.ask("FLUSHALL"), valkey.url)[1]


@pytest.fixture
def redis_emptied(redis_8: Node) -> Callable[[], str]:
    return lambda: (redis_8.ask("FLUSHALL"), redis_8.url)[1]


@pytest.fixture
def cluster_emptied(three_nodes: Cluster) -> Callable[[], str]:
    def emptied() -> str:
        three_nodes.flush()
        return three_nodes.url

    return emptied
