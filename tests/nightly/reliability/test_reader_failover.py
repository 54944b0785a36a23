"""The server's reader follows a master that hangs, with no restart, and never returns what the new one has not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.redis_store import RedisReader
from tests.servers.node import Node
from tests.servers.programs import program
from tests.servers.sentinels import SentinelSet, sentinel_set
from tests.worlds.waiting import PATIENCE_S

pytestmark = pytest.mark.soak
KEYS = [b"k%d" % i for i in range(50)]
OLD, NEW = [b"old"] * 50, [b"new"] * 50


def put(node: Node, value: bytes) -> None:
    with node.client() as client:
        client.mset(dict.fromkeys(KEYS, value))
        assert client.wait(1, 60_000)


async def settled(reader: RedisReader, expected: list[bytes]) -> None:
    """Read until the rows are those of the new master; before, they may be refused or those of the old one."""
    end = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < end
        try:
            found = await reader.get(KEYS)
        except StoreError:
            await asyncio.sleep(0.02)
            continue
        if found == expected:
            return
        assert found == OLD


def test_a_master_that_hangs_is_left_for_its_successor_and_stays_left(tmp_path: Path) -> None:
    async def across(watched: SentinelSet) -> None:
        reader = RedisReader(watched.url, 0.5)
        old = watched.master()
        put(old, b"old")
        await settled(reader, OLD)
        old.freeze()
        with pytest.raises(StoreError, match="did not answer"):
            await reader.get(KEYS)
        put(watched.successor(old), b"new")
        await settled(reader, NEW)
        old.thaw()
        for _ in range(200):
            assert await reader.get(KEYS) == NEW
            await asyncio.sleep(0.01)
        await reader.mark_in_use([b"sign"], 100)
        await reader.close()

    with sentinel_set(program("valkey"), tmp_path / "set") as watched:
        asyncio.run(across(watched))


def test_a_reader_that_was_left_with_a_former_master_finds_the_new_one_when_it_writes(tmp_path: Path) -> None:
    async def across(watched: SentinelSet) -> None:
        reader = RedisReader(watched.url)
        old = watched.master()
        put(old, b"old")
        await settled(reader, OLD)
        # By hand, so that nobody closes the reader's connection for it.
        replica = watched.replicas()[0]
        old.ask("REPLICAOF", "127.0.0.1", replica.port)
        with pytest.raises(StoreError, match="is a read-only replica"):
            await reader.mark_in_use([b"sign"], 100)
        replica.ask("REPLICAOF", "NO", "ONE")
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                await reader.mark_in_use([b"sign"], 100)
                break
            except StoreError:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
        assert await reader.get([b"sign"]) == [b"1"]
        await reader.close()

    with sentinel_set(program("valkey"), tmp_path / "set") as watched:
        asyncio.run(across(watched))
