"""What holds on a cluster beyond the contract of all stores: slots, and their moves from node to node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.cluster import RedisCluster

from infra.online.cluster_servers import key_slot
from infra.online.redis_store import BlockingReader, RedisReader, RedisWriter
from skewless.errors import StoreError
from skewless.keys import KeyCodec
from tests.contract.store import ranked
from tests.plans import make_view
from tests.servers.cluster import Cluster

KEYS = [b"{tag}%d" % i for i in range(40)]
OTHERS = [b"k%d" % i for i in range(200)]


@pytest.fixture
def url(cluster_emptied: Callable[[], str]) -> str:
    return cluster_emptied()


def test_rows_lie_where_redis_says(url: str) -> None:
    with RedisCluster.from_url(url.replace("redis+cluster", "redis").split(",")[0]) as client:
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


def test_what_is_deleted_by_its_prefix_is_deleted_on_every_node(url: str) -> None:
    writer = RedisWriter(url)
    others = [b"sk:p?:" + key for key in OTHERS]
    for names in (OTHERS, others, [b"sk:p*:k"], [b"sk:p[a-z]:k"]):
        writer.put(names, [ranked(1)] * len(names))
    assert writer.delete("sk:p?:") == len(others)
    assert writer.delete("sk:p[a-z]:") == 1
    assert writer.delete("sk:p?:") == 0
    left = BlockingReader(url)
    assert left.get([b"sk:p*:k", *OTHERS, *others]) == [ranked(1)] * (1 + len(OTHERS)) + [None] * len(others)
    left.close()
    writer.close()


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


def test_one_reader_follows_a_slot_that_moves_while_many_read(three_nodes: Cluster, url: str) -> None:
    slot = key_slot(KEYS[0])
    source = three_nodes.owner(KEYS[0])
    target = next(node for node in three_nodes.nodes if node is not source)
    writer = RedisWriter(url)
    writer.put(KEYS + OTHERS, [ranked(i) for i in range(240)])
    writer.set_marker("m", 5)
    writer.close()
    expected = [ranked(i) for i in range(240)]

    async def follow() -> None:
        reader = RedisReader(url)
        there, back = three_nodes.steps(slot, source, target), three_nodes.steps(slot, target, source)
        for step in [*there, *back]:
            reads = [asyncio.ensure_future(reader.get(KEYS + OTHERS)) for _ in range(20)]
            await asyncio.sleep(0)
            step()
            assert await asyncio.gather(*reads) == [expected] * 20
            assert await reader.get_marked(KEYS[:2], ["m"]) == (expected[:2], [5])
            assert await asyncio.gather(*(reader.get([key]) for key in KEYS)) == [[row] for row in expected[:40]]
            await reader.hold([b"{tag}sign"], 100)
            assert await reader.get([b"{tag}sign"]) == [b"1"]
        await reader.close()

    asyncio.run(follow())


async def read(url: str, *keys: bytes) -> list[bytes | None]:
    reader = RedisReader(url)
    try:
        return await reader.get(keys)
    finally:
        await reader.close()
