"""What only an ``AsyncClient`` has: tasks that are cancelled, and more calls than connections."""

from __future__ import annotations

import asyncio
import gc

import pytest

from skewless.client import AsyncClient, Limits
from skewless.contract.errors import BusyError
from tests.integration.client.scripted import GOOD, HELD, SILENT, Scripted, nobody, scripted

ROW = {"card_id": 7}


async def until_asked(server: Scripted, n: int) -> None:
    """Wait until the server has met n requests."""
    async with asyncio.timeout(20):
        while len(server.asked) < n:  # noqa: ASYNC110 - the server is a thread
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("step", [SILENT, GOOD[:-20]])
def test_a_cancelled_call_leaves_the_client_usable(step: bytes) -> None:
    async def work(server: Scripted) -> list[float]:
        async with AsyncClient(server.url, limits=Limits(connections=1)) as client:
            await client.predict([ROW])
            for n in (2, 3, 4):
                server.steps.insert(0, step)
                call = asyncio.create_task(client.predict([ROW]))
                await until_asked(server, n)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            return (await client.predict([ROW])).scores

    with scripted(GOOD) as server:
        assert asyncio.run(work(server)) == [0.25]
        assert [one.connection for one in server.asked] == [1, 1, 2, 3, 4]


def test_a_call_cancelled_in_the_queue_takes_no_place() -> None:
    async def work(server: Scripted) -> list[float]:
        async with AsyncClient(server.url, limits=Limits(connections=1)) as client:
            first = asyncio.create_task(client.predict([ROW]))
            await until_asked(server, 1)
            waiting = asyncio.create_task(client.predict([ROW]))
            await asyncio.sleep(0)
            waiting.cancel()
            first.cancel()
            await asyncio.gather(first, waiting, return_exceptions=True)
            return (await client.predict([ROW])).scores

    with scripted(SILENT, GOOD) as server:
        assert asyncio.run(work(server)) == [0.25]
        assert len(server.asked) == 2


def test_calls_beyond_the_connections_wait_their_turn() -> None:
    async def work(server: Scripted) -> int:
        async with AsyncClient(server.url, limits=Limits(connections=3)) as client:
            replies = await asyncio.gather(*[client.predict([ROW]) for _ in range(60)])
            return len(replies)

    with scripted(GOOD) as server:
        assert asyncio.run(work(server)) == 60
        assert server.connections == 3


def test_a_turn_that_does_not_come_in_time_is_said() -> None:
    async def work(server: Scripted) -> None:
        async with AsyncClient(server.url, limits=Limits(connections=1, attempt_s=0.2)) as client:
            first = asyncio.create_task(client.predict([ROW]))
            await until_asked(server, 1)
            with pytest.raises(BusyError, match="client: has no free connection"):
                await client.predict([ROW], timeout_s=0.02)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    with scripted(SILENT) as server:
        asyncio.run(work(server))
        assert len(server.asked) == 1


def test_a_call_under_way_ends_when_its_client_is_closed() -> None:
    async def work(server: Scripted) -> list[float]:
        client = AsyncClient(server.url)
        call = asyncio.create_task(client.predict([ROW]))
        await until_asked(server, 1)
        await client.close()
        server.release.set()
        return (await call).scores

    with scripted(HELD) as server:
        assert asyncio.run(work(server)) == [0.25]


def test_a_client_without_connections_need_not_be_closed(recwarn: pytest.WarningsRecorder) -> None:
    async def work(url: str) -> bool:
        return await AsyncClient(url).live()

    assert not asyncio.run(work(nobody()))
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
