"""Cluster behaviour in addition to the contract of all stores: slots, and their moves between nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

import pytest
from redis.cluster import RedisCluster

from skewless.contract.errors import StoreError
from skewless.contract.keys import KeyCodec
from skewless.infra.reads.online.clients import RedisAddress, open_client
from skewless.infra.reads.online.markers import marker_keys
from skewless.infra.reads.online.port import LOST, Marker
from skewless.infra.reads.online.redis_store import BlockingReader, RedisReader, RedisWriter
from skewless.infra.reads.online.servers import ClusterServers, key_slot
from tests.contract.store import RowStore, ranked
from tests.servers.cluster import Cluster
from tests.worlds.plans import make_view

KEYS = [b"{tag}%d" % i for i in range(40)]
OTHERS = [b"k%d" % i for i in range(200)]


@pytest.fixture
def url(cluster_emptied: Callable[[], str]) -> str:
    return cluster_emptied()


def test_rows_lie_where_redis_says(url: str) -> None:
    with raw(url) as client:
        for key in (b"", b"{}", b"{}a", b"a{}", b"{a", b"a}b{c}d", b"{{a}}", b"sk:p:h:{id|7}", b"\xff{\x00}"):
            assert key_slot(key) == client.cluster_keyslot(key.decode("latin1").encode("latin1"))


def test_all_views_of_an_entity_lie_in_one_slot() -> None:
    names = [KeyCodec("p", make_view(name)).encode([7]) for name in ("a", "b", "c")]
    assert len({key_slot(name) for name in names if name}) == 1


def test_every_node_gets_rows(three_nodes: Cluster, url: str) -> None:
    writer = RedisWriter(url)
    writer.put(OTHERS, [ranked(1)] * len(OTHERS))
    writer.close()
    sizes = [node.ask("DBSIZE") for node in three_nodes.nodes]
    assert sum(sizes) == len(OTHERS)
    assert min(sizes) > 0


def test_scripts_forgotten_by_one_node_are_sent_again(three_nodes: Cluster, url: str) -> None:
    writer = RedisWriter(url)
    three_nodes.nodes[1].ask("SCRIPT FLUSH")
    assert writer.put(OTHERS, [ranked(1)] * len(OTHERS)) == len(OTHERS)
    writer.close()


def test_4_5_one_node_that_may_evict_is_refused(three_nodes: Cluster, url: str) -> None:
    three_nodes.nodes[2].ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreError, match="may evict rows"):
            RedisWriter(url)
    finally:
        three_nodes.nodes[2].ask("CONFIG SET", "maxmemory-policy", "noeviction")


def test_the_address_of_one_node_is_refused_with_the_way_to_write_it(three_nodes: Cluster, url: str) -> None:
    assert url
    writer = RedisWriter(three_nodes.nodes[0].url)
    with pytest.raises(StoreError, match=r"is a node of a cluster.*redis\+cluster://"):
        writer.put(OTHERS, [ranked(1)] * len(OTHERS))
    writer.close()


def test_rows_are_written_and_read_while_their_slot_moves(three_nodes: Cluster, url: str) -> None:
    """Writers and readers keep a map of slots that is older than each step of the move."""
    slot = key_slot(KEYS[0])
    source = three_nodes.owner(KEYS[0])
    target = next(node for node in three_nodes.nodes if node is not source)
    writer, blocking = RedisWriter(url), BlockingReader(url)
    assert writer.put(KEYS, [ranked(1)] * len(KEYS)) == len(KEYS)
    blocking.get(KEYS)
    for number, step in enumerate(three_nodes.steps(slot, source, target), start=2):
        step()
        assert writer.put(KEYS + OTHERS, [ranked(number)] * len(KEYS + OTHERS)) == len(KEYS + OTHERS)
        assert writer.put(KEYS, [ranked(1)] * len(KEYS)) == 0
        assert blocking.get(KEYS + OTHERS) == [ranked(number)] * len(KEYS + OTHERS)
        assert asyncio.run(read(url, *KEYS)) == [ranked(number)] * len(KEYS)
    writer.close()
    blocking.close()
    three_nodes.move(slot, target, source)


async def test_one_reader_follows_a_slot_that_moves_while_many_read(three_nodes: Cluster, url: str) -> None:
    slot = key_slot(KEYS[0])
    source = three_nodes.owner(KEYS[0])
    target = next(node for node in three_nodes.nodes if node is not source)
    writer = RedisWriter(url)
    writer.put(KEYS + OTHERS, [ranked(i) for i in range(240)])
    writer.set_markers({"m": Marker(5, 60)})
    writer.close()
    expected = [ranked(i) for i in range(240)]
    reader = RedisReader(url)
    there, back = three_nodes.steps(slot, source, target), three_nodes.steps(slot, target, source)
    for step in [*there, *back]:
        reads = [asyncio.ensure_future(reader.get(KEYS + OTHERS)) for _ in range(20)]
        await asyncio.sleep(0)
        step()
        assert await asyncio.gather(*reads) == [expected] * 20
        assert await reader.get_with_markers(KEYS[:2], ["m"]) == (expected[:2], [Marker(5, 60)])
        assert await asyncio.gather(*(reader.get([key]) for key in KEYS)) == [[row] for row in expected[:40]]
        await reader.mark_in_use([b"{tag}sign"], 100)
        assert await reader.get([b"{tag}sign"]) == [b"1"]
    await reader.close()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 3))])
def test_8_4_of_the_64_markers_the_least_position_and_the_least_watermark_count(url: str, seed: int) -> None:
    chance = random.Random(seed)
    writer, reader = RedisWriter(url), BlockingReader(url)
    writer.set_markers({"m": Marker(100, 900)})
    assert stored("m", url) == [b"100 900 " + layout(url)] * 64
    standing = {key: Marker(chance.randrange(20), chance.randrange(1, 20)) for key in marker_keys("m", spread=True)}
    put_marks(url, standing)
    positions, watermarks = zip(*standing.values(), strict=True)
    assert reader.get_with_markers([], ["m"])[1] == [Marker(min(positions), min(watermarks))]
    assert writer.marker("m") == min(positions)
    writer.set_markers({"m": Marker(10)})  # each keeps its own time
    assert reader.get_with_markers([], ["m"])[1] == [Marker(10, min(watermarks))]
    writer.set_markers({"m": Marker(30, 5)})
    assert read_marks(url, "m") == [Marker(30, 5)]
    for worthless in (None, Marker(LOST, 40)):
        put_marks(url, {chance.choice(list(standing)): worthless})
        assert reader.get_with_markers([], ["m", "other"])[1] == [None, None]
        assert writer.marker("m") is None
        writer.set_markers({"m": Marker(LOST)})  # as one who applies all again begins
        writer.set_markers({"m": Marker(40)})
        assert reader.get_with_markers([], ["m"])[1] == [Marker(40, 0)], "one is unknown, so nothing is known of all"
        writer.set_markers({"m": Marker(40, 30)})
        assert read_marks(url, "m") == [Marker(40, 30)]
    reader.close()
    writer.close()


def test_4_5_one_who_begins_to_apply_all_again_after_slots_moved_and_is_killed_leaves_no_proof(url: str) -> None:
    writer = RedisWriter(url)
    with raw(url) as client:
        for key in marker_keys("m", spread=True):
            client.set(key, b"7 30 former")
    assert writer.marker("m") is None
    writer.set_markers({"m": Marker(LOST)})
    assert writer.marker("m") is None
    writer.set_markers({"m": Marker(9, 40)}, {"m": LOST})
    assert writer.marker("m") == 9
    writer.close()


@pytest.mark.parametrize("lost", [None, Marker(LOST), Marker(3, 50), Marker(9, 20), Marker(3, 0)])
def test_8_4_one_node_that_is_behind_holds_back_what_every_reader_says(
    three_nodes: Cluster, url: str, lost: Marker | None
) -> None:
    writer = RedisWriter(url)
    writer.set_markers({"m": Marker(9, 50)})
    writer.close()
    first, last = three_nodes.bounds(1)
    put_marks(url, {key: lost for key in marker_keys("m", spread=True) if first <= key_slot(key) <= last})
    expected = None if lost is None or lost.position == LOST else lost
    assert read_marks(url, "m") == [expected]


def raw(url: str) -> RedisCluster:
    return RedisCluster.from_url(url.replace("redis+cluster", "redis").split(",")[0])


def stored(name: str, url: str) -> list[bytes | None]:
    with raw(url) as client:
        return [client.get(key) for key in marker_keys(name, spread=True)]


def put_marks(url: str, marks: Mapping[bytes, Marker | None]) -> None:
    """Let servers have markers that they would have after a loss; None: none."""
    with raw(url) as client:
        for key, mark in marks.items():
            if mark is None:
                client.delete(key)
            else:
                client.set(key, b"%d %d " % mark + layout(url))


def layout(url: str) -> bytes:
    servers = ClusterServers(open_client(RedisAddress.parse(url), 5.0))
    try:
        return str(servers.layout()).encode()
    finally:
        servers.close()


def read_marks(url: str, *names: str) -> list[Marker | None]:
    """Return what both readers say."""
    return RowStore.at(url).marked([], names)[1]


async def read(url: str, *keys: bytes) -> list[bytes | None]:
    reader = RedisReader(url)
    try:
        return await reader.get(keys)
    finally:
        await reader.close()
