"""What every online store promises (infra/online/port.py): one suite, over memory and over a real server."""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import redis

from infra.online.memory_store import MemoryReader, MemoryStore
from infra.online.port import OnlineReader, OnlineWriter
from infra.online.redis_store import RedisReader, RedisWriter


@dataclass(frozen=True, kw_only=True)
class Store:
    """One adapter; each call opens the client anew, as another process would."""

    url: str | None
    memory: MemoryStore

    def writer(self) -> OnlineWriter:
        return RedisWriter(self.url) if self.url else self.memory

    def put(self, *rows: tuple[bytes, bytes]) -> int:
        writer = self.writer()
        try:
            return writer.put([key for key, _ in rows], [row for _, row in rows])
        finally:
            writer.close()

    def get(self, *keys: bytes) -> list[bytes | None]:
        async def read() -> list[bytes | None]:
            reader: OnlineReader = RedisReader(self.url) if self.url else MemoryReader(self.memory)
            try:
                return await reader.get(keys)
            finally:
                await reader.close()

        return asyncio.run(read())

    def marker(self, name: str) -> tuple[int | None, int | None]:
        """Return what the writer and what the reader say."""

        async def read() -> int | None:
            reader: OnlineReader = RedisReader(self.url) if self.url else MemoryReader(self.memory)
            try:
                return await reader.marker(name)
            finally:
                await reader.close()

        writer = self.writer()
        try:
            return writer.marker(name), asyncio.run(read())
        finally:
            writer.close()


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> Store:
    url = request.getfixturevalue("server_url") if request.param == "valkey" else None
    if url:
        with redis.Redis.from_url(url) as client:
            client.flushall()
    return Store(url=url, memory=MemoryStore())


def ranked(*words: int, body: bytes = b"") -> bytes:
    """Return a row whose rank is eight unsigned words; those left out are zero."""
    return struct.pack(">8I", *words, *[0] * (8 - len(words))) + body


def test_2_3_what_was_written_is_read(store: Store) -> None:
    assert store.put((b"a", ranked(1)), (b"b", ranked(2))) == 2
    assert store.get(b"b", b"none", b"a", b"b") == [ranked(2), None, ranked(1), ranked(2)]


def test_nothing_is_asked_for_nothing(store: Store) -> None:
    assert store.put() == 0
    assert store.get() == []


def test_2_3_newer_wins_in_either_order(store: Store) -> None:
    assert store.put((b"k", ranked(1))) == 1
    assert store.put((b"k", ranked(2))) == 1
    assert store.put((b"k", ranked(1))) == 0
    assert store.get(b"k") == [ranked(2)]


def test_2_3_an_equal_rank_is_not_written_again(store: Store) -> None:
    store.put((b"k", ranked(5, body=b"first")))
    assert store.put((b"k", ranked(5, body=b"other"))) == 0
    assert store.get(b"k") == [ranked(5, body=b"first")]


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize(("low", "high"), [(0, 1), (2**31 - 1, 2**31), (2**32 - 2, 2**32 - 1), (0, 2**32 - 1)])
def test_2_3_each_word_counts_as_unsigned_and_before_those_behind_it(
    store: Store, place: int, low: int, high: int
) -> None:
    less = ranked(*[7] * place, low, *[2**32 - 1] * (7 - place))
    more = ranked(*[7] * place, high, *[0] * (7 - place))
    assert store.put((b"k", less)) == 1
    assert store.put((b"k", more)) == 1
    assert store.put((b"k", less)) == 0
    assert store.get(b"k") == [more]


def test_2_3_a_tombstone_wins_by_its_rank_like_any_row(store: Store) -> None:
    tombstone = ranked(3, body=b"\x00" * 16 + b"\x01\x01")
    store.put((b"k", ranked(2)))
    store.put((b"k", tombstone))
    store.put((b"k", ranked(1)))
    assert store.get(b"k") == [tombstone]
    assert store.put((b"k", ranked(4))) == 1


def test_2_3_many_versions_of_one_key_in_one_call(store: Store) -> None:
    assert store.put(*[(b"k", ranked(n)) for n in (3, 1, 4, 1, 5)]) == 3
    assert store.get(b"k") == [ranked(5)]


def test_keys_and_rows_are_binary_safe(store: Store) -> None:
    odd = [bytes(range(256)), b"", b"\r\n$3\r\n", "sk:p:{id|日本}".encode(), b"\xff\x00"]
    rows = [(key, ranked(1, body=key * 3)) for key in odd]
    assert store.put(*rows) == len(odd)
    assert store.get(*odd) == [row for _, row in rows]


def test_more_keys_than_fit_one_call(store: Store) -> None:
    rows = [(b"k%d" % i, ranked(i)) for i in range(1_001)]
    assert store.put(*rows) == 1_001
    assert store.put(*rows) == 0
    assert store.get(*(key for key, _ in rows)) == [row for _, row in rows]


def test_a_marker_is_unknown_until_it_is_set_and_never_goes_back(store: Store) -> None:
    writer = store.writer()
    assert store.marker("m") == (None, None)
    for seq, standing in ((-1, -1), (0, 0), (7, 7), (3, 7), (10, 10), (9, 10), (2**53, 2**53)):
        writer.set_marker("m", seq)
        assert store.marker("m") == (standing, standing)
    assert store.marker("other") == (None, None)
    writer.close()


def test_2_3_concurrent_writers_leave_the_highest_rank(store: Store) -> None:
    versions = [(b"k%d" % (i % 5), ranked(i // 5, body=b"%d" % i)) for i in range(300)]
    start = threading.Barrier(4)

    def write(seed: int) -> None:
        mine = versions.copy()
        random.Random(seed).shuffle(mine)
        start.wait()
        for i in range(0, len(mine), 7):
            store.put(*mine[i : i + 7])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.get(*(b"k%d" % i for i in range(5))) == [row for _, row in versions[-5:]]


def test_the_clocks_of_store_and_machine_are_compared(store: Store) -> None:
    writer = store.writer()
    assert abs(writer.clock_offset_us()) < 1_000_000
    writer.close()
