"""Requests that wait while there is no room: who is next, who is passed over, who is refused, and at what cost."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.serving.access.caller import Caller as Principal
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_routes import Exchange, HotCycle
from skewless.serving.http.wire_limits import BodyBudget
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission
from tests.unit.serving.http.wire import Wire, request

ROOM = 3


@dataclass
class Caller:
    """Who asks once on a connection."""

    name: int
    last_reply_at: float
    key: str = "anyone"
    disconnected: bool = False
    replies: list[tuple[int, bytes]] = field(default_factory=list)
    waited: float | None = None

    def exchange(self, body: bytes = b"", path: str = "/predict") -> Exchange:
        return Exchange(
            method="POST",
            path=path,
            query=b"",
            headers=[],
            body=body,
            caller=Principal("API key", self.key, scopes=frozenset({"predict"})),
            send=lambda status, body, _: self.replies.append((status, body)),
        )


@dataclass
class HeldHandler:
    """A handler that takes room until it is told to answer."""

    wait_s: float = 60.0
    most_bytes: int = 1_000_000
    metrics: Metrics = field(default_factory=Metrics)
    begun: list[Caller] = field(default_factory=list)
    admission: Admission = field(init=False)
    turns: FairQueue = field(init=False)
    bodies: BodyBudget = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(requests=ROOM, rows=1_000, metrics=self.metrics)
        self.bodies = BodyBudget(self.most_bytes)
        self.turns = FairQueue(self.admission, self.bodies, wait_s=self.wait_s, metrics=self.metrics)

    def ask(self, client: Caller, body: bytes = b"", path: str = "/predict") -> None:
        self.turns.submit(
            lambda exchange: self._begin(client, exchange), client.exchange(body, path), cast("HotCycle", client)
        )

    def answer(self, client: Caller) -> None:
        client.replies.append((200, b""))
        self.admission.release(1)

    def count(self, reason: str) -> int:
        return int(self.metrics.refused(reason).value)

    def _begin(self, client: Caller, exchange: Exchange) -> None:
        self.admission.admit(1)
        client.waited = exchange.waited_s
        self.begun.append(client)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_while_there_is_room_nobody_waits() -> None:
    door = HeldHandler()
    clients = [Caller(i, 0.0) for i in range(ROOM)]
    for client in clients:
        door.ask(client)
    assert door.begun == clients
    assert {client.waited for client in clients} == {0.0}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.randoms(use_true_random=False))
async def test_whose_connection_rested_longest_is_next_and_each_is_begun_once(
    rested: list[float], chance: random.Random
) -> None:
    door = HeldHandler()
    first = [Caller(-i, 0.0) for i in range(ROOM)]
    later = [Caller(i, since) for i, since in enumerate(rested)]
    gone = [client for client in later if chance.random() < 0.2]
    for client in first + later:
        door.ask(client, b"x" * 10)
    assert door.begun == first
    assert door.bodies.size == 10 * len(later)
    for client in gone:
        client.disconnected = True
    expected = sorted(later, key=lambda client: (client.last_reply_at, client.name))
    for client in first:
        door.answer(client)
    while (held := [client for client in door.begun if not client.replies]) or door.bodies.size:
        assert door.admission.in_flight <= ROOM
        for client in chance.sample(held, chance.randint(0, len(held))):
            door.answer(client)
        await turn()
    assert door.begun[ROOM:] == [client for client in expected if client not in gone]
    assert all(client.replies == [(200, b"")] for client in door.begun)
    assert door.count("abandoned") == len(gone)


async def test_a_key_below_its_share_is_next_however_many_requests_of_others_wait() -> None:
    door = HeldHandler()
    flood = [Caller(i, 0.0, "flood") for i in range(200)]
    for client in flood:
        door.ask(client)
    for n in range(50):
        polite = Caller(1_000 + n, 99.0, "polite")  # its connection just had a reply
        door.ask(polite)
        for client in [client for client in door.begun if not client.replies][:2]:
            door.answer(client)
        await turn()
        assert polite in door.begun[-2:]


@given(st.lists(st.sampled_from("aaaaaabbbc"), min_size=30, max_size=80))
async def test_keys_that_always_wait_share_the_room_equally(keys: list[str]) -> None:
    door = HeldHandler()
    first = [Caller(-i, 0.0, "first") for i in range(ROOM)]
    later = [Caller(i, 0.0, key) for i, key in enumerate(keys)]
    for client in first + later:
        door.ask(client)
    while held := [client for client in door.begun if not client.replies]:
        door.answer(held[0])
        await turn()
    begun = [client.key for client in door.begun[ROOM:]]
    for i in range(len(begun)):
        waiting = {key for key in "abc" if key in begun[i:]}
        counts = [begun[:i].count(key) for key in waiting]
        assert max(counts) - min(counts) <= 1
    assert sorted(begun) == sorted(keys)


async def test_a_line_that_stands_starts_fresh_requests_and_none_that_waited_for_half_the_longest_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So requests that start had a short wait, although others wait until they are rejected."""
    door, loop = HeldHandler(wait_s=1.0), asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    first = [Caller(-i, 0.0) for i in range(ROOM)]
    for client in first:
        door.ask(client)
    waits = []
    for i in range(10):  # one at 0.0 s, one at 0.15 s, and so on
        waits.append(Caller(i, float(i)))
        door.ask(waits[-1])
        now += 0.15
    for client in first:  # now 1.5 s have passed
        door.answer(client)
    await turn()
    assert door.begun[ROOM:] == [waits[9], waits[8], waits[7]]
    for client in door.begun[ROOM:]:
        door.answer(client)
    door.ask(polite := Caller(10, 99.0, "polite"))
    await turn()
    assert door.begun[2 * ROOM :] == [polite]


async def test_who_comes_when_others_wait_does_not_overtake_them() -> None:
    door = HeldHandler()
    first = [Caller(i, 0.0) for i in range(ROOM)]
    waits, comes = Caller(10, 1.0), Caller(11, 2.0)
    for client in (*first, waits):
        door.ask(client)
    door.answer(first[0])
    door.ask(comes)  # there is room now, for a moment
    await turn()
    assert door.begun[ROOM:] == [waits]
    door.answer(first[1])
    await turn()
    assert door.begun[ROOM:] == [waits, comes]


@pytest.mark.parametrize(("path", "kind"), [("/predict", dict), ("/v2/models/m/infer", str)])
async def test_who_has_waited_too_long_is_refused_with_the_same_bytes_each_time(path: str, kind: type) -> None:
    door = HeldHandler(wait_s=0.02)
    first = [Caller(i, 0.0) for i in range(ROOM)]
    later = [Caller(i, float(i)) for i in range(100)]
    for client in first + later:
        door.ask(client, b"x", path)
    while door.count("overload") < len(later):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.002)
    assert all([status for status, _ in client.replies] == [503] for client in later)
    (body,) = {body for client in later for _, body in client.replies}
    assert isinstance(json.loads(body)["error"], kind)
    assert b"has reached its limit of requests in flight" in body
    assert (door.bodies.size, door.count("overload")) == (0, 100)
    door.answer(first[0])
    await turn()
    assert door.begun == first
    door.ask(again := Caller(200, 0.0))
    assert door.begun[-1] is again


async def test_refusals_leave_time_for_answers() -> None:
    """However many have waited too long: 6,400 a second, 32 at each look."""
    door = HeldHandler(wait_s=0.001)
    began = asyncio.get_running_loop().time()  # the pace counts from the first that waits
    for i in range(ROOM + 1_000):
        door.ask(Caller(i, 0.0))
    while door.count("overload") < 1_000:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.002)
    assert asyncio.get_running_loop().time() - began > 0.9 * 1_000 / 6_400


async def test_nobody_waits_where_no_wait_is_set_or_bodies_are_too_many() -> None:
    door = HeldHandler(wait_s=0.0)
    for i in range(ROOM):
        door.ask(Caller(i, 0.0))
    door.ask(refused := Caller(10, 0.0))
    assert [status for status, _ in refused.replies] == [503]
    door = HeldHandler(most_bytes=10)
    for i in range(ROOM):
        door.ask(Caller(i, 0.0), b"x" * 100)
    door.ask(waits := Caller(10, 0.0), b"x" * 6)
    door.ask(refused := Caller(11, 0.0), b"x" * 6)
    assert (waits.replies, [status for status, _ in refused.replies]) == ([], [503])


async def test_a_request_on_a_connection_waits_and_is_answered_in_order_and_one_that_hung_up_is_not_begun() -> None:
    async with asyncio.timeout(60):
        door = HeldHandler()
        turns, admission = door.turns, door.admission
        for _ in range(ROOM):
            admission.admit(1)
        wire, other = Wire(turns=turns), Wire(turns=turns)
        await other.send(request("/later", b"abc"))
        await wire.send(request("/now", b"a") + request("/now", b"ab"))
        assert (wire.replies(), wire.exchanges) == ([], [])
        other.protocol.connection_lost(None)
        for _ in range(ROOM):
            admission.release(1)
        await wire.turn()
        assert wire.bodies() == [b"now 1", b"now 2"]
        assert other.exchanges == []
        assert door.count("abandoned") == 1
        await wire.send(request("/cold", b"a"))
        assert wire.bodies()[2:] == [b"cold POST /cold 1"]
