"""The contract of every online store for readers: each gets its own complete rows, once, under concurrency."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeAlias

import pytest
import uvloop

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import BlockingOnlineReader, Marker, OnConnect, OnlineReader, RowsAndMarkers
from skewless.infra.reads.online.resp import IntegerKeys, KeySeparators
from skewless.infra.reads.online.store import open_blocking_reader, open_online_reader, open_online_store
from tests.contract.store import StorePlace, ranked
from tests.worlds.waiting import until

KEYS = [b"k%d" % i for i in range(300)]
ROWS = {key: ranked(i, body=b"v%d;" % i * (i % 40)) for i, key in enumerate(KEYS)}
MARKS = {"m": Marker(7, 70), "n": Marker(9, 90)}

Conversation: TypeAlias = Callable[[OnlineReader], Coroutine[Any, Any, None]]


@pytest.fixture
def filled_store(online_place: StorePlace) -> StorePlace:
    """A store with rows and markers."""
    with online_place.store() as store:
        store.put(list(ROWS), list(ROWS.values()))
        store.set_markers(MARKS)
    return online_place


@pytest.fixture(params=[pytest.param("asyncio", marks=pytest.mark.soak), "uvloop"])
def loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture
def blocking(filled_store: StorePlace) -> Iterator[BlockingOnlineReader]:
    with closing(open_blocking_reader(filled_store.url)) as reader:
        yield reader


def converse(
    url: str,
    conversation: Conversation,
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    on_connect: OnConnect | None = None,
) -> None:
    """Hold a conversation with a reader."""

    async def held() -> None:
        reader = open_online_reader(url, 20.0, on_connect)
        try:
            await conversation(reader)
        finally:
            await reader.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(held())


async def right(reader: OnlineReader, seed: int) -> bool:
    """Ask for some rows, some of them twice, and for some that are not there; say whether the answer is right."""
    chance = random.Random(seed)
    keys = [chance.choice((*KEYS, b"none")) for _ in range(chance.randrange(40))]
    names = chance.choice((["m", "other", "n"], ["n"], []))
    await asyncio.sleep(chance.random() / 50)
    rows, marks = await reader.get_with_markers(keys, names)
    return rows == [ROWS.get(key) for key in keys] and marks == [MARKS.get(name) for name in names]


def test_a_thousand_who_ask_at_once_get_their_own(
    filled_store: StorePlace, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def conversation(reader: OnlineReader) -> None:
        assert await asyncio.gather(*(right(reader, seed) for seed in range(1_000))) == [True] * 1_000

    converse(filled_store.url, conversation, loop)


def test_callers_who_are_cancelled_leave_the_others_alone(
    filled_store: StorePlace, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def conversation(reader: OnlineReader) -> None:
        for seed in range(50):
            chance = random.Random(seed)
            tasks = [asyncio.ensure_future(right(reader, chance.randrange(10_000))) for _ in range(10)]
            await asyncio.sleep(chance.random() / 100)
            victims = chance.sample(tasks, 4)
            for victim in victims:
                victim.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(each is True or task in victims for each, task in zip(found, tasks, strict=True))

    converse(filled_store.url, conversation, loop)


def test_a_callback_is_told_once(filled_store: StorePlace) -> None:
    told: list[RowsAndMarkers | StoreError] = []

    async def conversation(reader: OnlineReader) -> None:
        reader.start_read([], [], told.append)
        for key in KEYS[:20]:
            reader.start_read([key], ["m"], told.append)
            reader.busy_poll()
        await asyncio.to_thread(until, lambda: len(told) >= 21)

    converse(filled_store.url, conversation)
    assert told == [([], []), *(([ROWS[key]], [MARKS["m"]]) for key in KEYS[:20])]


def test_a_store_that_is_away_is_said_by_every_side(online_place: StorePlace) -> None:
    told: list[RowsAndMarkers | StoreError] = []

    async def conversation(reader: OnlineReader) -> None:
        reader.start_read([b"k"], ["m"], told.append)
        with pytest.raises(StoreError, match="did not answer"):
            await reader.get([b"k"])
        with pytest.raises(StoreError, match="did not answer"):
            await reader.mark_in_use([b"k"], 1)

    converse(online_place.away, conversation)
    assert [type(answer) for answer in told] == [StoreError]
    with pytest.raises(StoreError, match="did not answer"):
        open_online_store(online_place.away)
    # That of a cluster asks for its nodes at once.
    with pytest.raises(StoreError, match="did not answer"), closing(open_blocking_reader(online_place.away)) as reader:
        reader.get_with_markers([b"k"], ["m"])


def test_a_sign_is_read_until_its_time_is_over(online_place: StorePlace) -> None:
    async def conversation(reader: OnlineReader) -> None:
        await reader.mark_in_use([], 1)
        await reader.mark_in_use([b"{s}long", b"{s}short"], 100)
        assert None not in await reader.get([b"{s}long", b"{s}short"])
        await reader.mark_in_use([b"{s}short"], 1)

    converse(online_place.url, conversation)
    with online_place.store() as store:
        until(lambda: store.get([b"{s}short"]) == [None])
        assert store.get([b"{s}long"]) != [None]


class Reading:
    """A callback for each connection, which fails at first."""

    def __init__(self) -> None:
        self.refused = True
        self.done = 0

    def do(self) -> None:
        if self.refused:
            raise StoreError("the disk", "refuses", fix="wait")
        self.done += 1

    async def do_later(self) -> None:
        await asyncio.sleep(0)
        self.do()


def test_4_5_work_is_awaited_for_a_connection_before_anything_is_read_over_it(filled_store: StorePlace) -> None:
    work = Reading()

    async def conversation(reader: OnlineReader) -> None:
        for _ in range(2):
            with pytest.raises(StoreError, match="the disk: refuses"):
                await reader.get(KEYS)
        work.refused = False
        assert await reader.get(KEYS) == list(ROWS.values())

    converse(filled_store.url, conversation, on_connect=work.do_later)
    assert work.done


def test_4_5_work_is_done_for_a_blocking_connection_before_anything_is_read_over_it(filled_store: StorePlace) -> None:
    work = Reading()
    with closing(open_blocking_reader(filled_store.url)) as reader:
        reader.on_connect(work.do)
        with pytest.raises(StoreError, match="the disk: refuses"):
            reader.get(KEYS)
        work.refused = False
        assert reader.get(KEYS) == list(ROWS.values())
    assert work.done


def test_keys_may_be_any_sequence(blocking: BlockingOnlineReader, filled_store: StorePlace) -> None:
    keys = IntegerKeys([KeySeparators(b"a{"), KeySeparators(b"b{")], [7, 10])
    with filled_store.store() as store:
        store.put([b"a{7}", b"b{10}"], [ranked(1), ranked(2)])
    assert blocking.get_with_markers(keys, ["m"]) == ([ranked(1), None, None, ranked(2)], [MARKS["m"]])


def test_threads_share_a_blocking_reader(blocking: BlockingOnlineReader) -> None:
    def work(first: int) -> bool:
        parts = [KEYS[i % 250 : i % 250 + 7] for i in range(first, first + 100)]
        return all(blocking.get(part) == [ROWS[key] for key in part] for part in parts)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


def test_a_forked_process_reads_for_itself(blocking: BlockingOnlineReader) -> None:
    assert blocking.get(KEYS[:1]) == [ROWS[KEYS[0]]]
    child = os.fork()
    if not child:
        right = all(blocking.get([key]) == [ROWS[key]] for key in KEYS[:200])
        os._exit(0 if right else 1)
    found = [blocking.get([key, b"none"]) for key in KEYS[:200]]
    assert os.waitpid(child, 0)[1] == 0
    assert found == [[ROWS[key], None] for key in KEYS[:200]]


def test_4_5_a_marker_vouches_for_rows_that_come_with_it(online_place: StorePlace) -> None:
    """However late the reader reads: rows that a marker covers are in the same reply."""
    stop = threading.Event()

    def write() -> None:
        with online_place.store() as store:
            n = 0
            while not stop.is_set():
                n += 1
                store.put([b"a", b"b"], [ranked(n), ranked(n)])
                store.set_markers({"m": Marker(n)})

    async def conversation(reader: OnlineReader) -> None:
        last = 0
        while last < 100:
            rows, (mark,) = await reader.get_with_markers([b"a", b"b"], ["m"])
            if mark is not None:
                assert all(row is not None and row >= ranked(mark.position) for row in rows)
                last = mark.position

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            converse(online_place.url, conversation)
        finally:
            stop.set()
        writing.result()
