"""Writers side by side, deletion, and a store that is away."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from feast import FeatureStore

from plugins.feast.tests.online.conftest import Make
from skewless.contract.errors import StoreError
from skewless_feast.connections import Connections
from tests.servers.cluster import cluster
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.feast_repo import ONLINE, USER, tear_down, users_of
from tests.worlds.feast_twins import NOW, Twin, ago, configure, frame, row, schema, users

Open = Callable[[Twin], FeatureStore]


def applied(twin: Twin, store: FeatureStore) -> FeatureStore:
    """Apply the view of users with one feature."""
    twin.write("users.parquet", [row(1, ago(days=5))], schema(("a_double",)))
    store.apply([USER, users(twin.repo, names=("a_double",))])
    return store


def test_the_newest_of_many_writers_wins_whatever_their_order(make: Make, opened: Open) -> None:
    twin = make("skewless")
    store = applied(twin, opened(twin))
    rows = [row(user, ago(minutes=age), a_double=float(age)) for user in range(4) for age in range(1, 31)]
    random.Random(3).shuffle(rows)
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda item: store.push("users_push", frame([item])), rows))
    answer = store.get_online_features(["users:a_double"], users_of(0, 1, 2, 3)).to_dict()
    assert answer["a_double"] == [1.0] * 4


def test_a_view_that_is_removed_leaves_no_row_and_its_neighbour_all(make: Make, opened: Open, valkey: Node) -> None:
    twin = make("skewless", project="plain")
    store = applied(twin, opened(twin))
    other = users(twin.repo, names=("a_double",))
    other.name = other.projection.name = "others"
    store.apply([other])
    store.push("users_push", frame([row(user, ago(hours=1), a_double=1.0) for user in range(50)]))
    with redis.Redis(port=valkey.port, db=1) as client:
        assert len(mine(client)) == 100
        store.apply([], objects_to_delete=[store.get_feature_view("others")], partial=False)
        assert len(mine(client)) == 50
    answer = store.get_online_features(["users:a_double"], users_of(0, 49)).to_dict()
    assert answer["a_double"] == [1.0, 1.0]


def mine(client: redis.Redis) -> list[bytes]:
    """Return the keys of the project."""
    return [key for key in client.scan_iter("sk:*") if key.startswith(b"sk:plain:")]


def test_a_store_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with running(Node(program("valkey"), tmp_path / "server")) as node:
        twin = configure("skewless", tmp_path / "repo", node.port)
        store = applied(twin, twin.store())
        store.push("users_push", frame([row(1, ago(hours=1), a_double=1.0)]))
        node.kill()
        for work in (
            lambda: store.get_online_features(["users:a_double"], users_of(1)),
            lambda: store.push("users_push", frame([row(1, ago(minutes=1), a_double=2.0)])),
        ):
            with pytest.raises(StoreError, match="did not answer"):
                work()
        node.start()
        store.push("users_push", frame([row(1, ago(minutes=1), a_double=2.0)]))
        assert store.get_online_features(["users:a_double"], users_of(1)).to_dict()["a_double"] == [2.0]


def test_connections_open_again_after_they_were_closed(valkey: Node, tmp_path: Path) -> None:
    connections = Connections(f"redis://127.0.0.1:{valkey.port}/2", tmp_path)
    assert connections.get_with_markers([None, b"x"], []) == ([None, None], {})
    connections.close()
    assert connections.get_with_markers([b"x"], []) == ([None], {})
    connections.close()


def test_a_cluster_answers_as_one_server(tmp_path: Path) -> None:
    with cluster(program("valkey"), tmp_path / "nodes") as nodes:
        online = {"type": ONLINE, "redis_url": nodes.url}
        twin = configure("skewless", tmp_path / "repo", 0, online_store=online)
        store = applied(twin, twin.store())
        store.push("users_push", frame([row(user, ago(hours=1), a_double=float(user)) for user in range(60)]))
        answer = store.get_online_features(["users:a_double"], users_of(*range(61))).to_dict()
        assert answer["a_double"] == [*map(float, range(60)), None]
        store.materialize_incremental(NOW)
        assert store.get_online_features(["users:a_double"], users_of(1)).to_dict()["a_double"] == [1.0]
        held = [count(node) for node in nodes.nodes]
        assert min(held) > 0
        tear_down(store)
        assert [count(node) for node in nodes.nodes] == [0, 0, 0]


def count(node: Node) -> int:
    """Return how many keys a node holds."""
    with node.client() as client:
        keys: Any = client.dbsize()
        return int(keys)
