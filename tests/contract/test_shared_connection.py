"""The server's reader shares one connection among all callers, and gets over whatever happens to it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeAlias, cast

import pytest
import redis
import uvloop

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import Marker, RowsAndMarkers
from skewless.infra.reads.online.redis_store import RedisReader
from tests.servers.cluster import Cluster
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.waiting import PATIENCE_S, until

N = 500
KEYS = [b"k%d" % i for i in range(N)]
VALUES = [b"v%d;" % i * (i % 40) for i in range(N)]
MARKS = {"m": Marker(7, 70), "n": Marker(9, 90)}
STORED = dict(zip(KEYS, VALUES, strict=True))
BRIEF_S = 0.4

Conversation: TypeAlias = Callable[[RedisReader], Coroutine[Any, Any, None]]
Run: TypeAlias = Callable[..., None]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(program("redis"), tmp_path_factory.mktemp("shared"))) as one:
        fill(one)
        yield one


@pytest.fixture(params=[pytest.param("asyncio", marks=pytest.mark.soak), "uvloop"])
def run(request: pytest.FixtureRequest, node: Node) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def held(conversation: Conversation, timeout_s: float = 20.0, url: str = node.url) -> None:
        async def hold() -> None:
            reader = RedisReader(url, timeout_s)
            try:
                await conversation(reader)
            finally:
                await reader.close()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(hold())

    return held


def fill(node: Node) -> None:
    with node.client() as client:
        client.mset(STORED)
        client.mset({"m": b"7 70", "n": b"9 90 layout"})


def clients(node: Node) -> set[str]:
    """Return the ids of a server's connections, without the calling one."""
    with node.client() as client:
        listed = cast("list[dict[str, str]]", client.client_list())
        return {each["id"] for each in listed} - {str(client.client_id())}


def some_keys(chance: random.Random) -> list[bytes]:
    """Return keys, some of them twice and some without a row."""
    return [chance.choice((*KEYS, b"none")) for _ in range(chance.randrange(40))]


async def right(reader: RedisReader, seed: int) -> bool:
    chance = random.Random(seed)
    keys, names = some_keys(chance), chance.choice((["m", "other", "n"], ["n"], []))
    await asyncio.sleep(chance.random() / 50)
    rows, markers = await reader.get_with_markers(keys, names)
    return rows == [STORED.get(key) for key in keys] and markers == [MARKS.get(name) for name in names]


async def refused(read: Awaitable[object]) -> str:
    with pytest.raises(StoreError, match="did not answer") as caught:
        await read
    return str(caught.value)


async def eventually(reader: RedisReader, keys: Sequence[bytes]) -> list[bytes | None]:
    """Read until the store answers, which it may refuse for a while."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await reader.get(keys)
        except StoreError:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


def test_a_thousand_requests_at_once_get_their_own_rows_over_one_connection(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        found = await asyncio.gather(*(right(reader, seed) for seed in range(1_000)))
        assert found == [True] * 1_000
        assert len(clients(node) - before) == 1

    before = clients(node)
    run(conversation)
    until(lambda: clients(node) == before)


def test_who_gives_up_early_does_not_take_the_others_replies_along(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        assert await reader.get(KEYS[:1]) == VALUES[:1]
        node.freeze()
        try:
            patient = [asyncio.ensure_future(reader.get([key])) for key in KEYS[:20]]
            for key in KEYS[20:40]:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.get([key]), 0.01)
        finally:
            node.thaw()
        assert await asyncio.gather(*patient) == [[value] for value in VALUES[:20]]
        assert await reader.get(KEYS) == VALUES

    run(conversation)


def test_a_server_that_hangs_is_given_up_and_its_late_replies_are_nobodys(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        assert await reader.get(KEYS[:1]) == VALUES[:1]
        node.freeze()
        try:
            begun = time.monotonic()
            reads = [refused(reader.get([key])) for key in KEYS[:30]]
            assert all("did not reply in time" in why for why in await asyncio.gather(*reads))
            assert time.monotonic() - begun > BRIEF_S / 2  # and the server hangs still
            await refused(reader.get(KEYS[:3]))
        finally:
            node.thaw()
        assert await eventually(reader, KEYS[7:9]) == VALUES[7:9]
        found = await asyncio.gather(*(right(reader, seed) for seed in range(50)))
        assert found == [True] * 50

    run(conversation, BRIEF_S)


def test_a_server_that_is_killed_and_started_again_is_found_again(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        assert await reader.get(KEYS[:1]) == VALUES[:1]
        node.freeze()
        waiting = [asyncio.ensure_future(refused(reader.get([key]))) for key in KEYS[:10]]
        await asyncio.sleep(0.05)
        node.kill()
        await asyncio.gather(*waiting)
        await asyncio.gather(*(refused(reader.get([key])) for key in KEYS[:10]))
        node.start()
        assert await reader.get(KEYS[:2]) == [None, None]
        fill(node)
        assert await reader.get(KEYS) == VALUES

    run(conversation)


def test_a_connection_that_the_server_closed_is_opened_again(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        for _ in range(3):
            assert await reader.get(KEYS[:2]) == VALUES[:2]
            node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)

    run(conversation)


def test_all_who_come_first_wait_for_the_same_connection(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        found = await asyncio.gather(*(reader.get([key]) for key in KEYS))
        assert found == [[value] for value in VALUES]
        assert node.info("stats")["total_connections_received"] <= before + 2

    before = node.info("stats")["total_connections_received"]
    run(conversation)


def test_a_callback_is_called_once_with_rows_or_with_the_error(run: Run, node: Node) -> None:
    async def conversation(reader: RedisReader) -> None:
        answers: list[RowsAndMarkers | StoreError] = []
        reader.start_read([], [], answers.append)
        assert answers == [([], [])]
        for key in KEYS[:20]:
            reader.start_read([key], ["m"], answers.append)
        assert await reader.get(KEYS[:1]) == VALUES[:1]
        assert answers[1:] == [([value], [MARKS["m"]]) for value in VALUES[:20]]
        answers.clear()
        node.ask("ACL", "SETUSER", "default", "-mget")
        try:
            reader.start_read(KEYS[:1], [], answers.append)
            with pytest.raises(StoreError, match="no permissions"):
                await reader.get(KEYS[:1])
        finally:
            node.ask("ACL", "SETUSER", "default", "+mget")
        assert [type(answer) for answer in answers] == [StoreError]
        assert await reader.get(KEYS[:1]) == VALUES[:1]

    run(conversation)


def test_user_password_and_database_are_as_the_address_says(run: Run, node: Node) -> None:
    async def found(reader: RedisReader) -> None:
        assert await reader.get([b"k", b"k1"]) == [b"of database 3", None]

    async def forbidden(reader: RedisReader) -> None:
        await refused(reader.get([b"k"]))
        await refused(reader.get([b"k"]))

    node.ask("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@read", "+select")
    with redis.Redis(port=node.port, db=3) as client:
        client.set("k", "of database 3")
    run(found, url=f"redis://reader:s3cret@127.0.0.1:{node.port}/3")
    run(forbidden, url=f"redis://reader:other@127.0.0.1:{node.port}/3")


def test_a_node_of_a_cluster_that_hangs_or_goes_takes_only_its_own_rows_along(
    run: Run, three_nodes: Cluster, cluster_emptied: Callable[[], str]
) -> None:
    url = cluster_emptied()

    async def conversation(reader: RedisReader) -> None:
        by_owner = {three_nodes.owner(key): key for key in KEYS[:30]}
        (lost, its), *others = by_owner.items()
        assert await reader.get(KEYS) == [None] * N
        lost.freeze()
        try:
            assert "did not reply in time" in await refused(reader.get([its, *dict(others).values()]))
            for _, key in others:
                assert await reader.get([key]) == [None]
        finally:
            lost.thaw()
        assert await eventually(reader, KEYS) == [None] * N

    run(conversation, BRIEF_S, url)
