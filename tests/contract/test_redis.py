"""Behaviour of the Redis adapter in addition to the contract of all stores, over a real server."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis

from skewless.contract.errors import StoreError
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.online.port import LOST, Marker
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import RedisReader, RedisWriter


@pytest.fixture
def client(server_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server_url) as one:
        one.flushall()
        yield one


@pytest.fixture
def writer(server_url: str) -> Iterator[RedisWriter]:
    one = RedisWriter(server_url)
    yield one
    one.close()


def row(n: int) -> bytes:
    return struct.pack(">8I", n, *[0] * 7) + b"%d" % n


async def read(url: str, *keys: bytes) -> list[bytes | None]:
    reader = RedisReader(url)
    try:
        return await reader.get(keys)
    finally:
        await reader.close()


async def marks(url: str, *names: str) -> list[Marker | None]:
    reader = RedisReader(url)
    try:
        return (await reader.get_with_markers([], names))[1]
    finally:
        await reader.close()


def test_2_4_rows_do_not_expire(client: redis.Redis, writer: RedisWriter) -> None:
    writer.put([b"k"], [row(1)])
    writer.set_markers({"m": Marker(1)})
    assert [client.ttl("k"), client.ttl("m")] == [-1, -1]


def test_scripts_forgotten_by_the_server_are_sent_again(client: redis.Redis, writer: RedisWriter) -> None:
    assert writer.put([b"k"], [row(1)]) == 1
    writer.set_markers({"m": Marker(1)})
    client.script_flush()
    assert writer.put([b"k", b"l"], [row(2), row(2)]) == 2
    client.script_flush()
    writer.set_markers({"m": Marker(2)})
    assert client.mget(["k", "l", "m"]) == [row(2), row(2), b"2 0"]


def test_8_4_a_marker_that_vouches_for_nothing_drops_its_watermark(
    client: redis.Redis, writer: RedisWriter, server_url: str
) -> None:
    for standing in (None, b"-2 50", b"-9 50"):
        client.flushall()
        if standing is not None:
            client.set("m", standing)
        writer.set_markers({"m": Marker(LOST)})
        assert client.get("m") == b"-2 0"
        assert (writer.marker("m"), asyncio.run(marks(server_url, "m"))) == (None, [None])
        writer.set_markers({"m": Marker(7)})
        assert asyncio.run(marks(server_url, "m")) == [Marker(7, 0)]
    writer.set_markers({"m": Marker(7, 70)})
    writer.set_markers({"m": Marker(LOST)})  # a marker never goes back
    assert asyncio.run(marks(server_url, "m")) == [Marker(7, 70)]


def test_a_batch_is_read_in_one_round_trip(client: redis.Redis, writer: RedisWriter, server_url: str) -> None:
    keys = [b"k%d" % i for i in range(500)]
    writer.put(keys, [row(1)] * 500)
    client.config_resetstat()
    assert asyncio.run(read(server_url, *keys)) == [row(1)] * 500
    stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    assert stats["cmdstat_mget"]["calls"] == 1
    assert "cmdstat_get" not in stats


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_4_5_a_server_that_may_evict_is_refused(client: redis.Redis, server_url: str, policy: str) -> None:
    client.config_set("maxmemory-policy", policy)
    try:
        with pytest.raises(StoreError, match=f"may evict rows.*maxmemory-policy {policy}.*noeviction"):
            RedisWriter(server_url)
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_a_full_server_refuses_and_what_was_written_stays(client: redis.Redis, writer: RedisWriter) -> None:
    writer.put([b"k"], [row(1)])
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreError, match="when used memory > 'maxmemory'"):
            writer.put([b"k"], [row(2)])
    finally:
        client.config_set("maxmemory", 0)
    assert client.get("k") == row(1)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@127.0.0.1:1/0",
        "redis+cluster://user:s3cret@127.0.0.1:1,127.0.0.1:2/",
        "redis+sentinel://user:s3cret@127.0.0.1:1,127.0.0.1:2/name/0?sentinel_password=s3cret",
    ],
)
def test_a_store_that_is_away_is_named_without_its_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        RedisWriter(url)
    with pytest.raises(StoreError) as read_error:
        asyncio.run(read(url, b"k"))
    shown = url.partition("?")[0].replace("user:s3cret", "***")
    for error in (caught.value, read_error.value):
        assert f"Redis at {shown}: did not answer" in str(error)
        assert "s3cret" not in str(error)
        assert "s3cret" not in str(error.as_dict())


def test_a_server_that_goes_away_is_a_store_error(tmp_path: Path) -> None:
    server = PrivateServer(tmp_path, grace_s=0.5)
    writer = RedisWriter(server.ensure())
    writer.put([b"k"], [row(1)])
    server.stop()
    with pytest.raises(StoreError, match="did not answer"):
        writer.put([b"k"], [row(2)])
    with pytest.raises(StoreError, match="did not answer"):
        writer.marker("m")
    with pytest.raises(StoreError, match="did not answer"):
        writer.set_markers({"m": Marker(1)})
    with pytest.raises(StoreError, match="did not answer"):
        writer.clock_offset_us()
    writer.close()


@pytest.mark.parametrize("url", ["http://:s3cret@127.0.0.1", "127.0.0.1:6379", "redis://:s3c/ret@127.0.0.1:6379/0", ""])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="is not the URL of a Redis") as caught:
        RedisWriter(url)
    with pytest.raises(StoreError, match="is not the URL of a Redis"):
        RedisReader(url)
    assert "s3c" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://u:p@h:1/0", "redis://***@h:1/0"),
        ("redis://:p@ss@h", "redis://***@h"),
        ("rediss://h/0?password=p&db=2", "rediss://h/0"),
        ("unix://u:p@/tmp/redis.sock?db=1", "unix://***@/tmp/redis.sock"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert display_url(url) == shown
