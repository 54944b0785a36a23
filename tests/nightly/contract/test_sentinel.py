"""Sentinel behaviour in addition to the contract of all stores: the master is found, also after a failover."""

from __future__ import annotations

import asyncio
import time

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.redis_store import BlockingReader, RedisReader, RedisWriter
from tests.contract.store import RowStore, ranked
from tests.servers.sentinels import SentinelSet
from tests.worlds.waiting import PATIENCE_S, until

KEYS = [b"k%d" % i for i in range(300)]


def test_a_failover_is_followed_by_clients_that_were_open_before(watched: SentinelSet) -> None:
    watched.master().ask("FLUSHALL")  # other files of this session have written the same keys
    store = RowStore.at(watched.url)
    writer, blocking = RedisWriter(watched.url), BlockingReader(watched.url)
    assert writer.put(KEYS, [ranked(1)] * len(KEYS)) == len(KEYS)
    writer.set_markers({"m": Marker(7)})
    assert blocking.get(KEYS) == store.get(*KEYS) == [ranked(1)] * len(KEYS)
    watched.replicate()
    asyncio.run(_read_across(watched))
    until(lambda: _written(writer, 2))
    assert writer.marker("m") == 7
    assert writer.put(KEYS, [ranked(1)] * len(KEYS)) == 0
    assert blocking.get(KEYS) == store.get(*KEYS) == [ranked(2)] * len(KEYS)
    assert abs(writer.clock_offset_us()) < 1_000_000
    writer.close()
    blocking.close()


async def _read_across(watched: SentinelSet) -> None:
    """Read with one client before and after the master has changed; it may fail in between, never lie."""
    reader = RedisReader(watched.url)
    assert await reader.get(KEYS) == [ranked(1)] * len(KEYS)
    await asyncio.to_thread(watched.fail_over)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            assert await reader.get(KEYS) == [ranked(1)] * len(KEYS)
            break
        except StoreError:
            assert time.monotonic() < deadline, "the reader never found the new master"
            await asyncio.sleep(0.02)
    await reader.close()


def _written(writer: RedisWriter, rank: int) -> bool:
    try:
        writer.put(KEYS, [ranked(rank)] * len(KEYS))
    except StoreError:
        return False
    return True


def test_a_name_that_no_sentinel_knows_is_a_store_error(watched: SentinelSet) -> None:
    wrong = watched.url.replace("/features/", "/others/")
    with pytest.raises(StoreError, match="No master found for 'others'"):
        RedisWriter(wrong)
