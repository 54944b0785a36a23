"""A blocking reader keeps its connections and recovers when they break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from skewless.contract.errors import StoreError
from skewless.infra.reads.online import servers
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import BlockingReader
from tests.servers.node import Node, running
from tests.servers.programs import program

KEYS = [b"k%d" % i for i in range(50)]
VALUES = [b"v%d" % i * 1_000 for i in range(50)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(program("valkey"), tmp_path_factory.mktemp("read"))) as one:
        with redis.Redis.from_url(one.url) as client:
            client.mset(dict(zip(KEYS, VALUES, strict=True)))
        yield one


@pytest.fixture
def reader(node: Node) -> Iterator[BlockingReader]:
    one = BlockingReader(node.url)
    assert one.get(KEYS) == VALUES
    yield one
    one.close()


def connected(node: Node) -> int:
    with redis.Redis.from_url(node.url) as client:
        return len(client.client_list()) - 1


def test_reads_one_after_the_other_share_a_connection(node: Node, reader: BlockingReader) -> None:
    before = connected(node)
    for _ in range(20):
        assert reader.get(KEYS) == VALUES
    assert connected(node) == before


def test_connections_that_the_server_closed_are_opened_again(node: Node, reader: BlockingReader) -> None:
    for _ in range(3):
        with redis.Redis.from_url(node.url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert reader.get(KEYS) == VALUES


def test_a_server_that_does_not_answer_in_time_is_named(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_WRITE_S", 0.3)
    reader = BlockingReader(node.url)
    assert reader.get(KEYS) == VALUES
    node.freeze()
    try:
        with pytest.raises(StoreError, match="did not answer"):
            reader.get(KEYS)
    finally:
        node.thaw()
    assert reader.get(KEYS) == VALUES
    reader.close()


def test_what_the_server_refuses_is_told_and_the_next_read_works(node: Node, reader: BlockingReader) -> None:
    with redis.Redis.from_url(node.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-mget")
        try:
            with pytest.raises(StoreError, match=r"(?i)no permissions"):
                reader.get(KEYS)
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+mget")
    assert reader.get(KEYS) == VALUES


def test_a_socket_file_is_read_too(tmp_path: Path) -> None:
    server = PrivateServer(tmp_path, grace_s=0.5)
    reader = BlockingReader(server.ensure())
    try:
        assert reader.get([b"k", b"l"]) == [None, None]
    finally:
        reader.close()
        server.stop()
