"""The contract of every online store for rows and markers (infra/reads/online/port.py): one suite over all adapters."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.rows import NO_TIME, RowCodec, Versions
from skewless.infra.reads.online.port import Marker
from tests.contract.conftest import KINDS, USUAL_KINDS, place_of
from tests.contract.store import RowStore, StorePlace, ranked
from tests.worlds.plans import make_view

ROOT = Path(__file__).parents[2]
WRITER = """
import random, struct, sys
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.store import open_online_store
writer, numbers = open_online_store(sys.argv[1]), list(range(150))
random.Random(int(sys.argv[2])).shuffle(numbers)
sys.stdin.readline()
for n in numbers:
    writer.put([b"a", b"b"], [struct.pack(">8I", n, *[0] * 7) + b"%d" % n] * 2)
    writer.set_markers({"m": Marker(n)})
writer.close()
"""


@pytest.fixture(params=["memory", *USUAL_KINDS])
def store(request: pytest.FixtureRequest) -> RowStore:
    """Each of those who keep rows and markers in turn; tests of other things keep theirs in memory."""
    return RowStore.in_memory() if request.param == "memory" else place_of(request.param, request).rows


def test_2_3_what_was_written_is_read(store: RowStore) -> None:
    assert store.put((b"a", ranked(1)), (b"b", ranked(2))) == 2
    assert store.get(b"b", b"none", b"a", b"b") == [ranked(2), None, ranked(1), ranked(2)]


def test_nothing_is_asked_for_nothing(store: RowStore) -> None:
    assert store.put() == 0
    assert store.get() == []


def test_2_3_newer_wins_in_either_order(store: RowStore) -> None:
    assert store.put((b"k", ranked(1))) == 1
    assert store.put((b"k", ranked(2))) == 1
    assert store.put((b"k", ranked(1))) == 0
    assert store.get(b"k") == [ranked(2)]


def test_2_3_an_equal_rank_is_not_written_again(store: RowStore) -> None:
    store.put((b"k", ranked(5, body=b"first")))
    assert store.put((b"k", ranked(5, body=b"other"))) == 0
    assert store.get(b"k") == [ranked(5, body=b"first")]


def test_2_3_each_word_counts_as_unsigned_and_before_those_behind_it(store: RowStore) -> None:
    writer, expected = store.writer(), dict[bytes, bytes]()
    bounds = [(0, 1), (2**31 - 1, 2**31), (2**32 - 2, 2**32 - 1), (0, 2**32 - 1)]
    for number, (online_place, (low, high)) in enumerate(product(range(8), bounds)):
        key = b"k%d" % number
        less = ranked(*[7] * online_place, low, *[2**32 - 1] * (7 - online_place))
        more = ranked(*[7] * online_place, high, *[0] * (7 - online_place))
        assert [writer.put([key], [row]) for row in (less, more, less)] == [1, 1, 0], (online_place, low, high)
        expected[key] = more
    writer.close()
    assert store.get(*expected) == list(expected.values())


def test_2_3_a_tombstone_wins_by_its_rank_like_any_row(store: RowStore) -> None:
    tombstone = ranked(3, body=b"\x00" * 16 + b"\x01\x01")
    store.put((b"k", ranked(2)))
    store.put((b"k", tombstone))
    store.put((b"k", ranked(1)))
    assert store.get(b"k") == [tombstone]
    assert store.put((b"k", ranked(4))) == 1


def test_2_3_many_versions_of_one_key_in_one_call(store: RowStore) -> None:
    assert store.put(*[(b"k", ranked(n)) for n in (3, 1, 4, 1, 5)]) == 3
    assert store.get(b"k") == [ranked(5)]


def test_keys_and_rows_are_binary_safe(store: RowStore) -> None:
    odd = [bytes(range(256)), b"", b"\r\n$3\r\n", "sk:p:{id|日本}".encode(), b"\xff\x00"]
    rows = [(key, ranked(1, body=key * 3)) for key in odd]
    assert store.put(*rows) == len(odd)
    assert store.get(*odd) == [row for _, row in rows]


def test_more_keys_than_fit_one_call(store: RowStore) -> None:
    rows = [(b"k%d" % i, ranked(i)) for i in range(1_001)]
    assert store.put(*rows) == 1_001
    assert store.put(*rows) == 0
    assert store.get(*(key for key, _ in rows)) == [row for _, row in rows]


def test_a_marker_is_unknown_until_it_is_set_and_never_goes_back(store: RowStore) -> None:
    writer = store.writer()
    assert store.marker("m") == (None, None)
    for seq, standing in ((-1, -1), (0, 0), (7, 7), (3, 7), (10, 10), (9, 10), (2**53, 2**53)):
        writer.set_markers({"m": Marker(seq)})
        assert writer.marker("m") == standing
        assert store.marked([], ["m"])[1] == [Marker(standing)]
    assert store.marker("m") == (2**53, 2**53)
    assert store.marker("other") == (None, None)
    writer.close()


def test_8_4_a_watermark_of_0_leaves_what_stands_and_any_other_replaces_it(store: RowStore) -> None:
    """A later watermark may be older: its writer may know less, for example after a loss."""
    writer = store.writer()
    steps = [
        (Marker(-1), Marker(-1)),
        (Marker(3, 50), Marker(3, 50)),
        (Marker(5), Marker(5, 50)),
        (Marker(5, 70), Marker(5, 70)),
        (Marker(8, 60), Marker(8, 60)),
        (Marker(8), Marker(8, 60)),
        (Marker(2, 80), Marker(8, 80)),
        (Marker(2**53, 2**62), Marker(2**53, 2**62)),
        (Marker(0), Marker(2**53, 2**62)),
    ]
    for given, standing in steps:
        writer.set_markers({"m": given})
        assert store.marked([], ["m", "other"])[1] == [standing, None], given
    writer.close()
    assert store.marker("m") == (2**53, 2**53)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 3))])
def test_8_4_any_steps_leave_the_furthest_position_and_the_last_watermark(store: RowStore, seed: int) -> None:
    chance = random.Random(seed)
    writer, expected = store.writer(), dict[str, Marker]()
    for _ in range(60):
        name, given = (
            chance.choice("abc"),
            Marker(chance.randrange(-1, 9), chance.choice((0, 0, chance.randrange(1, 99)))),
        )
        writer.set_markers({name: given})
        old = expected.get(name, Marker(-1))
        expected[name] = Marker(max(old.position, given.position), given.watermark_us or old.watermark_us)
    writer.close()
    assert store.marked([], list(expected))[1] == list(expected.values())


def test_2_3_concurrent_writers_leave_the_highest_rank(store: RowStore) -> None:
    versions = [(b"k%d" % (i % 5), ranked(i // 5, body=b"%d" % i)) for i in range(300)]
    start = threading.Barrier(4)

    def write(seed: int) -> None:
        mine = versions.copy()
        random.Random(seed).shuffle(mine)
        with closing(store.writer()) as writer:
            start.wait()
            for i in range(0, len(mine), 7):
                writer.put([key for key, _ in mine[i : i + 7]], [row for _, row in mine[i : i + 7]])
                writer.set_markers({"m": Marker(max(struct.unpack(">I", row[:4])[0] for _, row in mine[i : i + 7]))})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.get(*(b"k%d" % i for i in range(5))) == [row for _, row in versions[-5:]]
    assert store.marker("m") == (59, 59)


def test_the_clocks_of_store_and_machine_are_compared(store: RowStore) -> None:
    writer = store.writer()
    assert abs(writer.clock_offset_us()) < 1_000_000
    writer.close()


def test_2_3_ranks_that_differ_in_one_bit(store: RowStore) -> None:
    common = int.from_bytes(bytes(range(17, 49)), "big")
    writer = store.writer()
    for bit in range(256):
        less, more = ((common & ~(1 << bit)).to_bytes(32, "big"), (common | 1 << bit).to_bytes(32, "big"))
        key = b"k%d" % bit
        assert [writer.put([key], [row]) for row in (less, more, less, more)] == [1, 1, 0, 0], bit
    writer.close()


def test_2_3_times_before_1970_and_rows_without_a_publication_time_are_older(store: RowStore) -> None:
    moments = [(-(2**62), 0), (-1, NO_TIME), (-1, -5), (-1, 0), (0, NO_TIME), (0, 1), (2**62, -1)]
    event, created = (np.array(column, dtype=np.int64) for column in zip(*moments, strict=True))
    n = len(moments)
    versions = Versions(
        event_ts=event,
        created_ts=created,
        seq=np.arange(n)[::-1].astype(np.int64),
        run_id=np.ones(n, dtype=np.int64),
        tombstone=np.zeros(n, dtype=np.bool_),
    )
    rows = RowCodec(make_view()).encode(versions, {"x": np.arange(n, dtype=np.float64)}, {"x": np.zeros(n, np.bool_)})
    for first, second in pairwise(rows):
        assert store.put((first + b"k", first), (first + b"k", second), (first + b"k", first)) == 2
        assert store.get(first + b"k") == [second]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 3))])
def test_2_3_any_arrival_order_leaves_the_maximum(store: RowStore, seed: int) -> None:
    chance = random.Random(seed)
    writer, expected = store.writer(), dict[bytes, bytes]()
    for _ in range(30):
        batch = []
        for _ in range(chance.randrange(25)):
            words = [chance.choice((0, 1, 2**16, 2**32 - 1)) for _ in range(8)]
            batch.append((b"{%d}k%d" % (chance.randrange(3), chance.randrange(9)), ranked(*words)))
        written = 0
        for key, row in batch:
            if key not in expected or row > expected[key]:
                expected[key] = row
                written += 1
        assert writer.put([key for key, _ in batch], [row for _, row in batch]) == written
    writer.close()
    assert store.get(*expected) == list(expected.values())


def test_columns_of_arrow_are_written_as_they_are_sliced(store: RowStore) -> None:
    keys = pa.array([b"k%d" % i for i in range(700)], pa.large_binary())
    rows = pa.array([ranked(i, body=b"x" * i) for i in range(700)], pa.large_binary())
    writer = store.writer()
    assert writer.put(keys.slice(0, 0), rows.slice(0, 0)) == 0
    assert writer.put(keys.slice(37, 511), rows.slice(37, 511)) == 511
    writer.close()
    assert store.get(*keys.to_pylist()) == [row if 37 <= i < 548 else None for i, row in enumerate(rows.to_pylist())]


def test_a_row_of_megabytes(store: RowStore) -> None:
    large = ranked(1, body=random.Random(0).randbytes(3_000_000))
    assert store.put((b"a", large), (b"b", ranked(1)), (b"c", large)) == 3
    assert store.get(b"c", b"b", b"a") == [large, ranked(1), large]


@pytest.mark.parametrize(
    "online_place",
    # A server sees connections, and not whether they are of threads: see the test of concurrent writers.
    ["sqlite", *(pytest.param(kind, marks=pytest.mark.soak) for kind in KINDS if kind != "sqlite")],
    indirect=True,
)
def test_2_3_writing_processes_leave_the_highest_rank(online_place: StorePlace) -> None:
    store, command = online_place.rows, [sys.executable, "-c", WRITER, online_place.url]
    writers = [subprocess.Popen([*command, str(seed)], cwd=ROOT, stdin=subprocess.PIPE, text=True) for seed in range(2)]
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    assert [process.wait(60) for process in writers] == [0] * 2
    assert store.get(b"a", b"b") == [ranked(149, body=b"149")] * 2
    assert store.marker("m") == (149, 149)


def test_4_5_rows_and_markers_come_from_one_round_trip(store: RowStore) -> None:
    rows = [(b"{%d}k" % i, ranked(i)) for i in range(50)]
    store.put(*rows)
    writer = store.writer()
    writer.set_markers({"m": Marker(3, 70)})
    writer.set_markers({"n": Marker(5)})
    writer.close()
    found, markers = store.marked([b"none", *(key for key, _ in rows)], ["n", "other", "m"])
    assert found == [None, *(row for _, row in rows)]
    assert markers == [Marker(5), None, Marker(3, 70)]
    assert store.marked([], []) == ([], [])
