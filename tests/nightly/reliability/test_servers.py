"""Servers that are full, read-only or shared, and writers that compete: no row is lost, none goes back."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import StoreError
from skewless.contract.rows import RANK_BYTES
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.reliability.losses import FIRST, VIEW, agrees, materialize, write_rounds
from tests.servers.node import Node, running
from tests.servers.programs import Name, program
from tests.worlds.latest import LatestRedisWorld

ROOT = Path(__file__).parents[3]
KEYS = 300
HOT = [b"hot%d" % i for i in range(5)]
COMPETITOR = """
import random, struct, sys
from skewless.infra.reads.online.redis_store import RedisWriter
writer, chance = RedisWriter(sys.argv[1]), random.Random(int(sys.argv[2]))
keys = [b"hot%d" % i for i in range(5)]
ranks = list(range(400))
chance.shuffle(ranks)
sys.stdin.readline()
for rank in ranks:
    chance.shuffle(keys)
    writer.put(keys, [struct.pack(">QQQQ", 2**63, 2**63, 7, rank) + b"%d" % rank for _ in keys])
writer.close()
"""


@pytest.fixture(params=["valkey", pytest.param("redis", marks=pytest.mark.soak)])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    kind: Name = request.param
    with running(Node(program(kind), tmp_path / "node")) as one:
        yield one


def make_world(tmp_path: Path, node: Node, name: str = "p") -> LatestRedisWorld:
    return LatestRedisWorld(root=tmp_path / name, url=node.url, clock=ManualClock(FIRST))


def test_a_full_server_says_so_and_the_next_run_completes(tmp_path: Path, node: Node) -> None:
    world = make_world(tmp_path, node)
    materialize(world, 1, KEYS, note="x" * 2_000)
    node.ask("CONFIG SET", "maxmemory", node.info("memory")["used_memory"] + 200_000)
    with pytest.raises(StoreError, match=r"is full: .*maxmemory.*Fix: raise its maxmemory, then run again"):
        materialize(world, 2, KEYS, note="y" * 6_000)
    standing = world.online(VIEW, *([key] for key in range(KEYS))).values["note"]
    assert all(note[:2] in {"0x", "1y"} for note in standing)
    node.ask("CONFIG SET", "maxmemory", 0)
    world.clock.set(FIRST + 100)
    world.run(VIEW)
    assert agrees(world, KEYS)
    assert all(note[:2] == "1y" for note in world.online(VIEW, *([key] for key in range(KEYS))).values["note"])


def test_a_replica_is_refused_and_nothing_is_lost(tmp_path: Path, node: Node) -> None:
    world = make_world(tmp_path, node)
    materialize(world, 1, 10)
    node.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreError, match="is a read-only replica"):
        materialize(world, 2, 10)
    node.ask("REPLICAOF", "NO", "ONE")
    world.clock.set(FIRST + 100)
    world.run(VIEW)
    assert agrees(world, 10)


def test_a_server_that_may_evict_is_refused_before_anything_is_written(tmp_path: Path, node: Node) -> None:
    world = make_world(tmp_path, node)
    node.ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")
    write_rounds(world, 1, 10)
    with pytest.raises(StoreError, match="may evict rows"):
        world.run(VIEW)
    assert node.ask("DBSIZE") == 0
    assert not world.state.exists()


def test_two_projects_in_one_server_never_touch(tmp_path: Path, node: Node) -> None:
    one, other = (make_world(tmp_path, node, name) for name in ("p", "pp"))
    materialize(one, 1, 10)
    materialize(other, 1, 10, note="other")
    materialize(one, 2, 10)
    assert agrees(one, 10)
    assert agrees(other, 10)
    assert set(other.online(VIEW, [0], [9]).values["note"]) == {"0other"}
    with node.client() as client:
        names = {bytes(name) for name in client.scan_iter(count=1_000)}
    assert len(names) == 2 * (10 + 1)
    # What is deleted of one, by its prefix, is nothing of the other.
    one.forget_online()
    assert set(one.online(VIEW, [0]).has_row) == {False}
    assert agrees(other, 10)


def test_2_3_no_rank_ever_goes_back_under_four_writers_of_which_one_is_killed(node: Node) -> None:
    command = [sys.executable, "-c", COMPETITOR, node.url]
    RedisWriter(node.url).close()
    writers = [subprocess.Popen([*command, str(seed)], cwd=ROOT, stdin=subprocess.PIPE, text=True) for seed in range(4)]
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch, node, done)
        for process in writers:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.close()
        writers[0].kill()
        codes = [process.wait(60) for process in writers]
        done.set()
        assert watching.result() > len(HOT)
    assert codes == [-9, 0, 0, 0]
    assert [node.ask("GET", key.decode())[RANK_BYTES:] for key in HOT] == [b"399"] * len(HOT)


def watch(node: Node, done: threading.Event) -> int:
    """Look at the hot keys until all is done; return how often a rank was another, always a higher one."""
    last, seen = dict.fromkeys(HOT, b""), 0
    with node.client() as client:
        while not done.is_set():
            for key in HOT:
                rank = cast("bytes | None", client.getrange(key.decode(), 0, RANK_BYTES - 1)) or b""
                assert rank >= last[key], f"{key!r} went back from {last[key].hex()} to {rank.hex()}"
                seen += rank != last[key]
                last[key] = rank
    return seen
