"""The stores and servers of all contract tests, started when first needed, emptied before each test."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.store import StorePlace
from tests.servers.cluster import Cluster
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.servers.sentinels import SentinelSet, sentinel_set
from tests.sqlite_store.registration import registered

KINDS = ("sqlite", "valkey", "redis", "cluster", "sentinel")
# Valkey is what all other tests write to; clients of a sentinel set are those of its master.
USUAL_KINDS = [pytest.param(kind, marks=[pytest.mark.soak] * (kind in {"valkey", "sentinel"})) for kind in KINDS]
_TABLES = ("entries", "markers", "life")


@pytest.fixture(scope="session")
def redis_8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(program("redis"), tmp_path_factory.mktemp("redis"))) as node:
        yield node


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    with sentinel_set(program("valkey"), tmp_path_factory.mktemp("watched")) as nodes:
        yield nodes


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


@pytest.fixture(scope="session")
def _registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("registered")):
        yield


@pytest.fixture(params=USUAL_KINDS)
def online_place(request: pytest.FixtureRequest) -> StorePlace:
    """Each online store in turn, empty."""
    return place_of(request.param, request)


def place_of(kind: str, request: pytest.FixtureRequest) -> StorePlace:
    """Return an empty store of a kind."""
    if kind == "sqlite":
        request.getfixturevalue("_registered")
        file: Path = request.getfixturevalue("tmp_path") / "online.db"
        away = f"sqlite:///{file.parent}/missing/online.db"
        return StorePlace(kind=kind, url=f"sqlite:///{file}", lose=lambda: _empty_file(file), away=away)
    if kind == "sentinel":
        watched: SentinelSet = request.getfixturevalue("watched")
        watched.master().ask("FLUSHALL")
        away = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/name/0"
        return StorePlace(kind=kind, url=watched.url, lose=lambda: watched.master().ask("FLUSHALL"), away=away)
    emptied: Callable[[], str] = request.getfixturevalue(f"{kind}_emptied")
    away = "redis+cluster://127.0.0.1:1,127.0.0.1:2/" if kind == "cluster" else "redis://127.0.0.1:1/0"
    return StorePlace(kind=kind, url=emptied(), lose=emptied, away=away)


def _empty_file(file: Path) -> None:
    connection = sqlite3.connect(file)
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table}")
    connection.execute("INSERT INTO life VALUES (randomblob(16))")
    connection.commit()
    connection.close()
