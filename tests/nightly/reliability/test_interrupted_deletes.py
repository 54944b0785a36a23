"""SEMANTICS 4.5: a store that was stopped while it deleted keys has no marker beside missing keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count

import pytest
import redis

from skewless.contract.errors import StoreError
from skewless.infra.reads.online import redis_store
from skewless.infra.reads.online.port import LOST, Marker, OnlineReader, OnlineStore, RowsAndMarkers
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.reads.online.store import open_online_store
from tests.contract.store import RowStore, ranked
from tests.servers.cluster import Cluster
from tests.servers.node import Node

# Of a view of latest values, and of a generation of states with two partitions.
KEYS = [b"sk:p:h%s:{id|%d}" % (generation, number) for generation in (b"", b".3") for number in range(20)]
MARKERS = ["sk:p:h:applied", "sk:p:h.3:applied/orders-0", "sk:p:h.3:applied/orders-1"]
PREFIXES = ["sk:p:", "sk:p:h:", "sk:p:h.3:"]  # a project, a view, a generation
OTHER_KEY, OTHER_MARKER = b"sk:other:h:{id|1}", "sk:other:h:applied"


@pytest.fixture(params=["valkey", "nodes"])
def small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a server or a cluster, of which a few keys are deleted in a step."""
    monkeypatch.setattr(redis_store, "_SCAN_COUNT", 4)
    server: Node | Cluster = request.getfixturevalue(request.param)
    return server.url


def write(store: OnlineStore) -> None:
    """Write all keys and then the markers, as runs do."""
    if store.marker(MARKERS[0]) is None:
        store.set_markers({MARKERS[0]: Marker(LOST)})
    store.put([*KEYS, OTHER_KEY], [ranked(1)] * (len(KEYS) + 1))
    store.set_markers(dict.fromkeys([*MARKERS, OTHER_MARKER], Marker(2)))


def watch(patch: pytest.MonkeyPatch, act: Callable[[list[bytes], Callable[[list[bytes]], int]], int]) -> None:
    """Call a function with each batch of keys, and with what deletes them, in the place of a deletion."""
    real = RedisWriter.remove
    patch.setattr(
        RedisWriter,
        "remove",
        lambda self, keys, *marker: act(list(keys), lambda some: real(self, some, *marker)),
    )


@contextmanager
def both_readers(rows: RowStore) -> Iterator[Callable[[Sequence[bytes], Sequence[str]], list[RowsAndMarkers]]]:
    """Yield a function that returns what each kind of reader finds.

    On a cluster they read different copies of a marker, so they may differ.
    """

    async def open_reader() -> OnlineReader:
        return rows.reader()

    with closing(rows.blocking_reader()) as blocking, asyncio.Runner() as runner:
        reader = runner.run(open_reader())
        yield lambda keys, names: [
            blocking.get_with_markers(keys, names),
            runner.run(reader.get_with_markers(keys, names)),
        ]
        runner.run(reader.close())


@pytest.mark.parametrize("prefix", PREFIXES)
def test_4_5_no_step_of_a_deletion_leaves_a_marker_beside_missing_keys(
    small_steps: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, names = [key for key in KEYS if key.startswith(prefix.encode())], [n for n in MARKERS if n.startswith(prefix)]
    rows, stops = RowStore.at(small_steps), 0
    with closing(open_online_store(small_steps)) as store, both_readers(rows) as read_both:
        for last in count(step=9 if "cluster" in small_steps else 1):
            write(store)
            left = [last]

            def remove_some(keys: list[bytes], remove: Callable[[list[bytes]], int], left: list[int] = left) -> int:
                some = sorted(keys, key=lambda key: b"applied" in key)
                if some and not left[0]:
                    remove(some[:1])  # of a step, too, a part may be done: in the worst order
                    raise redis.ConnectionError
                left[0] -= bool(some)
                return remove(some)

            with monkeypatch.context() as patch:
                watch(patch, remove_some)
                try:
                    store.delete(prefix)
                except StoreError:
                    stops += 1
                    for found, marks in read_both(gone, names):
                        assert None not in found or marks == [None] * len(names), last
                else:
                    break
        assert stops > 3
        kept = [*(each for each in KEYS if each not in gone), OTHER_KEY]
        assert rows.marked(gone, names) == ([None] * len(gone), [None] * len(names))
        assert rows.marked(kept, [OTHER_MARKER]) == ([ranked(1)] * len(kept), [Marker(2)])


@pytest.mark.parametrize(
    ("small_steps", "prefix"),
    [
        *(("valkey", prefix) for prefix in PREFIXES),
        ("nodes", "sk:p:"),
        *(pytest.param("nodes", prefix, marks=pytest.mark.soak) for prefix in PREFIXES[1:]),
    ],
    indirect=["small_steps"],
)
def test_4_5_a_run_that_writes_while_a_deletion_is_suspended_has_all_its_rows_or_no_marker(
    small_steps: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, found = RowStore.at(small_steps), set()
    with closing(open_online_store(small_steps)) as store:
        for step in count(step=9 if "cluster" in small_steps else 1):  # a marker of a cluster has 64 keys
            write(store)
            steps = count()

            def write_before(
                keys: list[bytes], remove: Callable[[list[bytes]], int], steps: count[int] = steps, at: int = step
            ) -> int:
                if keys and next(steps) == at:
                    write(store)
                    # Nor is a single row missing at any time from here on, if its marker is there.
                    assert rows.marked(KEYS, MARKERS) == ([ranked(1)] * len(KEYS), [Marker(2)] * len(MARKERS))
                return remove(keys)

            with monkeypatch.context() as patch:
                watch(patch, write_before)
                store.delete(prefix)
            if next(steps) <= step:
                break
            for names, markers in ((KEYS[:20], MARKERS[:1]), (KEYS[20:], MARKERS[1:])):
                values, marks = rows.marked(names, markers)
                assert None not in values or marks == [None] * len(markers), step
                found.add((markers == MARKERS[:1], None in values))
    is_of_latest = prefix != "sk:p:h.3:"
    assert ((True, False) in found, (False, True) in found) == (True, prefix != "sk:p:h:"), found
    assert ((True, True) in found) == is_of_latest  # written before the marker was removed


def test_4_5_a_run_fails_whose_rows_were_deleted_before_it_set_its_marker(small_steps: str) -> None:
    with closing(open_online_store(small_steps)) as store, closing(open_online_store(small_steps)) as other:
        other.delete("sk:p:")
        for reached in (LOST, 2):
            assert store.marker(MARKERS[0]) == (None if reached == LOST else reached)
            store.set_markers({MARKERS[0]: Marker(reached)})
            store.put(KEYS, [ranked(1)] * len(KEYS))
            other.delete("sk:p:")
            with pytest.raises(StoreError, match="may have lost rows"):
                store.set_markers({MARKERS[0]: Marker(9)}, {MARKERS[0]: reached})
            assert other.marker(MARKERS[0]) is None
            write(other)
