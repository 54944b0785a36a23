"""The contract of every online store for the states of windowed views: one suite over all adapters."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.errors import StoreError
from skewless.contract.keys import window_marker
from skewless.contract.names import partition_hash
from skewless.contract.window_events import EventSelector, ViewEvents
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.state_layout import EventOrigins
from skewless.contract.windows.window_reader import WindowReader
from skewless.infra.reads.online.port import Marker, OnlineStore
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.reads.online.servers import key_slot
from skewless.infra.reads.online.store import open_blocking_reader
from skewless.infra.reads.online.window_states import StateView
from tests.contract.store import StorePlace
from tests.servers.cluster import Cluster
from tests.windows.log import bits, signed
from tests.windows.oracle import Event, Value, counts, features_of_counted
from tests.worlds.streams import BASE, VIEW

IDS = 20
M = BASE - 30 * SECOND
PartitionEvents = list[tuple[int, Event]]


@pytest.fixture
def store(online_place: StorePlace) -> Iterator[OnlineStore]:
    with online_place.store() as one:
        yield one


class States:
    """The states of one view, and what was appended to them."""

    def __init__(self, store: OnlineStore, generation: int = 1) -> None:
        self.store = store
        self.view = StateView("p", VIEW, generation)
        self.events: dict[tuple[str, int], Event] = {}
        self._lens = EventSelector(VIEW)

    def seen(self, partition: str, rows: Sequence[Event]) -> ViewEvents:
        columns = {
            "id": pa.array([row.key[0] for row in rows], pa.int64()),
            "x": pa.array([row.values["x"] for row in rows], pa.float64()),
            "y": pa.array([row.values["y"] for row in rows], pa.float64()),
            "n": pa.array([row.values["n"] for row in rows], pa.int64()),
            "s": pa.array([row.values["s"] for row in rows], pa.string()),
        }
        origin = EventOrigins(
            ts=np.array([row.ts for row in rows], dtype=np.int64),
            partition=np.full(len(rows), signed(partition)),
            seq=np.array([row.seq for row in rows], dtype=np.int64),
        )
        return self._lens.select(pa.table(columns), origin)

    def append(self, partition: str, rows: Sequence[Event], expected: int | None = None) -> int:
        self.events |= {(partition, row.seq): row for row in rows}
        return self.view.append(self.store, self.seen(partition, rows), M, (self.marker(partition), expected))

    def marker(self, partition: str) -> str:
        return window_marker("p", VIEW, self.view.generation, partition)

    def names(self, ids: Sequence[int] = range(IDS)) -> pa.Array:
        return self.view.keys.pack({"id": pa.array(ids, pa.int64())})

    def check(self) -> None:
        """Assert that every state says what brute force finds."""
        packed = self.store.get(self.names())
        own: dict[tuple[Value, ...], list[Event]] = {(key,): [] for key in range(IDS)}
        for event in self.events.values():
            if counts(VIEW, event):
                own[event.key].append(event)
        for t in (BASE, BASE + 5 * SECOND, BASE + 45 * SECOND):
            got = WindowReader(VIEW).features(self.view.codec.unpack(packed), t)
            for key in range(IDS):
                assert bits(got[key].tolist()) == bits(features_of_counted(VIEW, own[key,], t)), (key, t)


def made(partition: str, first: int, n: int, seed: int = 0, ids: int = IDS) -> list[Event]:
    return [_event(partition, seq, random.Random(f"{partition} {seq} {seed}"), ids) for seq in range(first, first + n)]


def _event(partition: str, seq: int, chance: random.Random, ids: int) -> Event:
    values: dict[str, Value] = {
        "x": chance.choice([None, -0.0, chance.gauss(0, 10)]),
        "y": chance.choice([None, chance.random()]),
        "n": chance.choice([None, chance.randrange(9)]),
        "s": chance.choice([None, "a", "é", f"s{chance.randrange(5)}"]),
    }
    ts = BASE - chance.randrange(80 * SECOND)
    return Event(key=(chance.randrange(ids),), ts=ts, partition=signed(partition), seq=seq, values=values)


def test_4_3_what_was_applied_changes_nothing(store: OnlineStore) -> None:
    states = States(store)
    rows = made("a", 0, 300)
    assert states.append("a", rows) == len({row.key for row in rows})
    before = store.get(states.names())
    assert states.append("a", rows) == 0
    assert states.append("a", rows[50:200]) == 0
    assert store.get(states.names()) == before
    states.check()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 3))])
def test_4_3_batches_of_other_bounds_add_what_is_new(store: OnlineStore, seed: int) -> None:
    states, rows, chance = States(store), made("a", 0, 400, seed), random.Random(seed)
    done = 0
    while done < len(rows):
        # Continue at an earlier position, as a worker does that knows only an old marker.
        first = chance.randrange(done + 1)
        done = max(done, min(len(rows), first + chance.randrange(1, 90)))
        states.append("a", rows[first:done])
    states.check()


def test_4_3_an_entity_keeps_a_position_for_each_of_many_partitions(store: OnlineStore) -> None:
    states = States(store)
    for turn in range(3):
        for name in "abcdefg":
            states.append(name, made(name, turn * 20, 20, ids=3))
    for name in "gac":
        assert states.append(name, made(name, 0, 60, ids=3)) == 0
    states.check()
    slots = states.view.codec.unpack(store.get(states.names([0]))).slots
    assert sorted(slots.partition.tolist()) == sorted(map(signed, "abcdefg"))


def test_a_state_of_another_plan_is_refused(store: OnlineStore) -> None:
    states = States(store)
    name = states.names([7])[0].as_py()
    store.publish(name, b"\x01" * 64)
    with pytest.raises(StoreError, match="another plan wrote"):
        states.append("a", [row for row in made("a", 0, 900) if row.key == (7,)])
    with pytest.raises(StoreError, match="did not write"):
        states.view.codec.unpack(store.get([name]))


def test_3_7_rolling_up_under_two_writers_loses_nothing(store: OnlineStore, online_place: StorePlace) -> None:
    states = States(store)
    parts = {name: made(name, 0, 300, ids=4) for name in "ab"}

    def write(name: str) -> None:
        with online_place.store() as writer:
            own = States(writer)
            for first in range(0, 300, 15):
                own.append(name, parts[name][first : first + 15])
                own.view.roll(own.store, own.names(range(4)), M + first * 1_000)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, parts))
    states.events = {(name, row.seq): row for name, rows in parts.items() for row in rows}
    states.check()


def test_4_5_a_store_that_was_emptied_takes_nothing_until_it_is_caught_up(
    store: OnlineStore, online_place: StorePlace
) -> None:
    states = States(store)
    marker, rows = states.marker("a"), made("a", 0, 200)
    assert store.marker(marker) is None
    store.set_markers({marker: Marker(-1)}, {marker: None})
    states.append("a", rows[:100], -1)
    store.set_markers({marker: Marker(99)}, {marker: -1})
    assert store.marker(marker) == 99
    assert store.read_markers([marker, "none"]) == [Marker(99), None]
    online_place.lose()
    with pytest.raises(StoreError, match="may have lost rows"):
        states.append("a", rows[100:], 99)
    with pytest.raises(StoreError, match="may have lost rows"):
        store.set_markers({marker: Marker(199)}, {marker: 99})
    assert store.get(states.names()) == [None] * IDS
    assert store.read_markers([marker]) == [None]
    assert store.marker(marker) is None
    store.set_markers({marker: Marker(-1)}, {marker: None})
    states.append("a", rows, -1)
    store.set_markers({marker: Marker(199)}, {marker: -1})
    assert store.read_markers([marker]) == [Marker(199)]
    states.check()


def test_markers_never_go_back(store: OnlineStore) -> None:
    store.marker("m")
    store.set_markers({"m": Marker(7)}, {"m": None})
    store.set_markers({"m": Marker(5)}, {"m": 6})
    assert store.read_markers(["m"]) == [Marker(7)]
    with pytest.raises(StoreError, match="may have lost rows"):
        store.set_markers({"m": Marker(9)}, {"m": 8})
    assert store.marker("m") == 7


def test_8_4_watermarks_stand_beside_positions_also_where_only_they_move(
    store: OnlineStore, online_place: StorePlace
) -> None:
    reader = open_blocking_reader(online_place.url)
    store.marker("m")
    store.set_markers({"m": Marker(7, 50), "n": Marker(3)}, {"m": None, "n": None})
    assert reader.get_with_markers([], ["m", "n"])[1] == [Marker(7, 50), Marker(3)]
    for watermark in (60, 80, 0, 70):
        store.set_markers({"m": Marker(7, watermark)}, {"m": 7})
        assert reader.get_with_markers([], ["m"])[1] == [Marker(7, watermark or 80)]
    with pytest.raises(StoreError, match="may have lost rows"):
        store.set_markers({"m": Marker(8, 90)}, {"m": 8})
    assert reader.get_with_markers([], ["m"])[1] == [Marker(7, 70)], "what is refused says nothing of its time either"
    assert store.read_markers(["m", "n"]) == [Marker(7, 70), Marker(3)]
    reader.close()


def test_4_6_whole_states_are_made_once_and_replaced_only_as_they_were_read(store: OnlineStore) -> None:
    states, other = States(store), States(store, 2)
    rows = made("a", 0, 300)
    states.append("a", rows)
    names = states.names()
    held = store.get(names)
    kept = [i for i, state in enumerate(held) if state is not None]
    tiles = states.view.codec.unpack([held[i] for i in kept])
    keys = pa.table({"id": pa.array(kept, pa.int64())})
    other.view.create(store, keys, tiles)
    other.view.create(store, keys, tiles)  # as one does that is run again
    other.events = states.events
    other.check()
    assert other.append("a", rows) == 0
    more = made("a", 300, 100)
    states.append("a", more)
    changed = {row.key[0] for row in more}
    new = states.view.codec.pack(states.view.codec.unpack(held))
    untouched = len(kept) - len(changed & set(kept))
    places = pa.array(kept)
    old = [held[i] for i in kept]
    assert states.view.replace(store, names.take(places), old, new.take(places)) == untouched
    states.check()


def test_what_is_published_stands_until_it_is_deleted_by_its_prefix(store: OnlineStore) -> None:
    states, other = States(store), States(store, 12)
    states.append("a", made("a", 0, 300))
    other.append("a", made("a", 0, 300))
    store.publish(b"sk:p:note", b"x")
    assert store.get([b"sk:p:note"]) == [b"x"]
    assert store.delete(f"sk:p:{VIEW.hash}.1:") == IDS
    assert store.get(states.names()) == [None] * IDS
    assert None not in store.get(other.names())
    assert store.get([b"sk:p:note"]) == [b"x"]


def test_4_5_one_emptied_node_of_a_cluster_is_noticed(three_nodes: Cluster, cluster_emptied: Callable[[], str]) -> None:
    writer = RedisWriter(cluster_emptied())
    states = States(writer)
    marker, rows = states.marker("a"), made("a", 0, 400)
    states.store.marker(marker)
    states.store.set_markers({marker: Marker(-1)}, {marker: None})
    states.append("a", rows[:300], -1)
    states.store.set_markers({marker: Marker(299)}, {marker: -1})
    assert all(node.ask("DBSIZE") > 5 for node in three_nodes.nodes)
    assert len({key_slot(name) for name in states.names().to_pylist()}) > IDS // 2
    three_nodes.nodes[1].ask("FLUSHALL")
    assert states.store.read_markers([marker]) == [None]
    with pytest.raises(StoreError, match="may have lost rows"):
        states.append("a", rows[300:], 299)
    assert states.store.marker(marker) is None
    states.append("a", rows)
    states.check()
    writer.close()


def test_4_5_every_slot_of_an_emptied_node_is_refused(three_nodes: Cluster, cluster_emptied: Callable[[], str]) -> None:
    """Slots too whose own 64th part begins on another node."""
    writer = RedisWriter(cluster_emptied())
    states = States(writer)
    marker = states.marker("a")
    states.store.marker(marker)
    states.store.set_markers({marker: Marker(5)}, {marker: None})
    slots = [key_slot(name) for name in states.names(range(30_000)).to_pylist()]
    for i, node in enumerate(three_nodes.nodes):
        node.ask("FLUSHALL")
        first, last = three_nodes.bounds(i)
        edge = [key for key, slot in enumerate(slots) if first <= slot <= last and not first + 40 < slot < last - 40]
        assert len(edge) > 20
        for key in edge:
            with pytest.raises(StoreError, match="may have lost rows"):
                states.append("a", [replace(made("a", 6, 1)[0], key=(key,))], 5)
        states.store.set_markers({marker: Marker(5)}, {marker: None})
    writer.close()


def test_states_are_appended_to_while_their_slot_moves(
    three_nodes: Cluster, cluster_emptied: Callable[[], str]
) -> None:
    writer = RedisWriter(cluster_emptied())
    states = States(writer)
    rows = made("a", 0, 400)
    marker = states.marker("a")
    states.store.marker(marker)
    states.store.set_markers({marker: Marker(-1)}, {marker: None})
    states.append("a", rows[:50], -1)
    key = states.names([3])[0].as_py()
    slot, source = key_slot(key), three_nodes.owner(key)
    target = next(node for node in three_nodes.nodes if node is not source)
    done = 50
    for step in three_nodes.steps(slot, source, target):
        step()
        states.append("a", rows[: done + 50], -1)
        done += 50
    states.check()
    assert states.store.marker(marker) is None  # set under another layout: it says nothing
    states.append("a", rows)
    states.store.set_markers({marker: Marker(399)}, {marker: None})
    assert states.store.marker(marker) == 399
    three_nodes.move(slot, target, source)
    states.check()
    writer.close()


def test_hashes_of_partitions_are_those_of_the_log() -> None:
    assert signed("a") == int(np.uint64(partition_hash("a")).view(np.int64))
