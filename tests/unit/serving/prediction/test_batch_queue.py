"""What comes in one turn is one batch; what comes while a batch is under way is the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from skewless.serving.prediction.predictor import BatchQueue
from skewless.serving.prediction.ticket import Ticket


class Queued(Ticket):
    def __init__(self, name: str, n: int = 1) -> None:
        self.name = name
        self.n = n


def name_of(ticket: Ticket) -> str:
    return cast("Queued", ticket).name


@dataclass
class QueueItem:
    """Deals with batches; each takes as many turns of the loop as are set."""

    turns: int = 0
    begun: list[list[str]] = field(default_factory=list)
    ended: int = 0

    async def __call__(self, batch: list[Ticket]) -> None:
        assert self.ended == len(self.begun), "two batches at once"
        self.begun.append([name_of(item) for item in batch])
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.ended += 1


def run(work: QueueItem, steps: Callable[[BatchQueue], Awaitable[None]], most: int = 1_000) -> list[list[str]]:
    """Return the batches that some steps lead to."""

    async def main() -> None:
        queue = BatchQueue(work, most)
        await steps(queue)
        await queue.drain()
        assert len(queue) == 0

    asyncio.run(main())
    assert work.ended == len(work.begun)
    return work.begun


async def taken(queue: BatchQueue) -> None:
    """Wait until a batch has been made of what waits."""
    while len(queue):  # noqa: ASYNC110 - a queue tells nobody
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_what_comes_in_one_turn_is_one_batch(turns: int) -> None:
    async def steps(queue: BatchQueue) -> None:
        for name in "abc":
            queue.put(Queued(name))
        assert len(queue) == 3

    assert run(QueueItem(turns), steps) == [["a", "b", "c"]]


def test_what_comes_while_a_batch_is_under_way_is_the_next() -> None:
    async def steps(queue: BatchQueue) -> None:
        queue.put(Queued("a"))
        await asyncio.sleep(0)
        for name in "bcd":
            queue.put(Queued(name))
            await asyncio.sleep(0)

    assert run(QueueItem(20), steps) == [["a"], ["b", "c", "d"]]


async def test_who_asks_again_at_once_is_in_the_next_batch() -> None:
    begun: list[list[str]] = []

    async def work(batch: list[Ticket]) -> None:
        begun.append([name_of(item) for item in batch])
        if len(begun) == 1:
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(queue.put, Queued("a again"))

    queue = BatchQueue(work, 1_000)
    queue.put(Queued("a"))
    await asyncio.sleep(0)
    queue.put(Queued("b"))
    await queue.drain()
    assert begun == [["a"], ["b", "a again"]]


def test_what_comes_after_the_last_batch_begins_another() -> None:
    async def steps(queue: BatchQueue) -> None:
        for name in "ab":
            queue.put(Queued(name))
            await queue.drain()

    assert run(QueueItem(3), steps) == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([1, 1, 1, 1, 1], [["0", "1", "2"], ["3", "4"]]),
        ([3, 1], [["0"], ["1"]]),
        ([2, 2, 2], [["0", "1"], ["2"]]),
        ([9, 9], [["0"], ["1"]]),
        ([0, 0, 3, 0], [["0", "1", "2"], ["3"]]),
    ],
)
def test_a_batch_takes_items_until_it_has_rows_enough(sizes: list[int], batches: list[list[str]]) -> None:
    async def steps(queue: BatchQueue) -> None:
        for i, n in enumerate(sizes):
            queue.put(Queued(str(i), n))

    assert run(QueueItem(1), steps, most=3) == batches


async def test_items_may_be_put_by_the_work_itself() -> None:
    seen: list[str] = []

    async def work(batch: list[Ticket]) -> None:
        for item in batch:
            seen.append(name_of(item))
            if len(seen) < 4:
                queue.put(Queued(name_of(item) + "'"))

    queue = BatchQueue(work, 10)
    queue.put(Queued("a"))
    await queue.drain()
    assert seen == ["a", "a'", "a''", "a'''"]


async def test_drained_waits_for_work_that_suspends() -> None:
    said: list[str] = []
    gate = asyncio.Event()

    async def work(batch: list[Ticket]) -> None:
        await gate.wait()
        said.extend(name_of(item) for item in batch)

    queue = BatchQueue(work, 10)
    queue.put(Queued("a"))
    waiting = asyncio.create_task(queue.drain())
    await asyncio.sleep(0)
    queue.put(Queued("b"))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    await waiting
    assert said == ["a", "b"]


async def test_an_idle_queue_is_drained() -> None:
    await asyncio.wait_for(BatchQueue(QueueItem(), 10).drain(), 20)


async def test_behind_a_batch_that_hangs_others_go_on() -> None:
    async with asyncio.timeout(20):
        begun: list[list[str]] = []
        under_way = most = 0
        gate = asyncio.Event()

        async def work(batch: list[Ticket]) -> None:
            nonlocal under_way, most
            begun.append([name_of(item) for item in batch])
            under_way += 1
            most = max(most, under_way)
            if name_of(batch[0]) in "ab":
                await gate.wait()
            await asyncio.sleep(0)
            under_way -= 1

        queue = BatchQueue(work, 2)
        for name in "abc":
            queue.put(Queued(name))
            await taken(queue)
        assert begun == [["a"], ["b"], ["c"]]
        for name in "defg":
            queue.put(Queued(name))
        await taken(queue)
        assert (begun[3:], most) == ([["d", "e"], ["f", "g"]], 3)
        gate.set()
        await queue.drain()
        most = 0
        for name in "hijk":
            queue.put(Queued(name))
        await queue.drain()
        assert (begun[5:], most) == ([["h", "i"], ["j", "k"]], 1)


async def test_what_comes_when_a_batch_ends_is_not_kept_waiting() -> None:
    dealt: asyncio.Future[None] | None = None

    async def work(_: list[Ticket]) -> None:
        assert dealt is not None
        dealt.set_result(None)

    queue = BatchQueue(work, 10)
    for _ in range(100):
        dealt = asyncio.get_running_loop().create_future()
        queue.put(Queued("a"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert dealt.done()


def test_what_is_put_together_is_in_one_batch_beyond_the_most() -> None:
    async def steps(queue: BatchQueue) -> None:
        queue.put(Queued("a", 2))
        queue.put(Queued("b", 2), Queued("c", 2))
        queue.put(Queued("d", 2))
        assert len(queue) == 3

    assert run(QueueItem(), steps, most=3) == [["a", "b", "c"], ["d"]]
