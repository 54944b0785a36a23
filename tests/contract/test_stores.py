"""The contract of every online store for repairs, deletion and lost writes."""

from __future__ import annotations

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.port import LOST, Marker
from tests.contract.conftest import KINDS
from tests.contract.store import StorePlace, ranked

pytestmark = pytest.mark.parametrize("online_place", KINDS, indirect=True)
OTHERS = [b"k%d" % i for i in range(200)]


def test_7_1_a_repair_replaces_what_is_as_it_was_read_whatever_its_rank(online_place: StorePlace) -> None:
    keys = [b"a", b"b", b"c", b"none"]
    with online_place.store() as store:
        store.put(keys[:3], [ranked(5), ranked(6), ranked(7)])
        read = store.get(keys)
        store.put([b"b"], [ranked(8)])
        new = [ranked(1, body=b"%d" % i) for i in range(4)]
        assert store.replace(keys, read, new).tolist() == [True, False, True, True]
        assert store.get(keys) == [new[0], ranked(8), new[2], new[3]]
        assert store.replace(keys[3:], [None], [ranked(2)]).tolist() == [False]
        assert store.replace([], [], []).tolist() == []


def test_7_1_a_repair_may_know_a_value_by_its_size_and_beginning(online_place: StorePlace) -> None:
    with online_place.store() as store:
        for key, value in ((b"a", b"head-1"), (b"b", b"head-22"), (b"c", b"tail-1")):
            store.publish(key, value)
        old = [b"head-0", b"head-0", b"head-0"]
        done = store.replace([b"a", b"b", b"c"], old, [b"new"] * 3, [b"head"] * 3)
        assert done.tolist() == [True, False, False]
        assert store.get([b"a", b"b", b"c"]) == [b"new", b"head-22", b"tail-1"]


def test_8_2_what_is_deleted_by_its_prefix_is_gone_with_its_markers(online_place: StorePlace) -> None:
    others = [b"sk:p?:" + key for key in OTHERS]
    with online_place.store() as store:
        for names in (OTHERS, others, [b"sk:p*:k"], [b"sk:p[a-z]:k"]):
            store.put(names, [ranked(1)] * len(names))
        store.set_markers({"sk:p?:applied": Marker(3), "sk:p:applied": Marker(4)})
        store.publish(b"sk:p?:generation", b"1")
        assert store.delete("sk:p?:") > len(others) + 1
        assert store.delete("sk:p[a-z]:") == 1
        assert store.delete("sk:p?:") == 0
        found, marks = online_place.rows.marked([b"sk:p*:k", *OTHERS, *others], ["sk:p?:applied", "sk:p:applied"])
        assert found == [ranked(1)] * (1 + len(OTHERS)) + [None] * len(others)
        assert marks == [None, Marker(4)]
        assert store.get([b"sk:p?:generation"]) == [None]


def test_1_4_1_values_are_removed_by_their_keys(online_place: StorePlace) -> None:
    keys = [b"sk:p:%d{e|%d}" % (i, i) for i in range(2_500)]
    with online_place.store() as store:
        store.put(keys, [ranked(1)] * len(keys))
        store.set_markers({"sk:p:applied": Marker(3)})
        assert store.remove([]) == 0
        assert store.remove([*keys[1:], b"none"]) == len(keys) - 1
        assert store.remove(keys[1:3]) == 0
        assert store.get([*keys[:2], keys[-1]]) == [ranked(1), None, None]
        assert store.marker("sk:p:applied") == 3
        # A row of a lower rank can be written again.
        store.put(keys[1:2], [ranked(0)])
        assert store.get(keys[1:2]) == [ranked(0)]


def test_8_4_a_marker_that_vouches_for_nothing_drops_its_watermark(online_place: StorePlace) -> None:
    store = online_place.rows
    with online_place.store() as writer:
        for _ in range(2):
            writer.set_markers({"m": Marker(LOST)})
            assert (writer.marker("m"), store.marked([], ["m"])[1], writer.read_markers(["m"])) == (
                None,
                [None],
                [None],
            )
        writer.set_markers({"m": Marker(7)})
        assert store.marked([], ["m"])[1] == [Marker(7, 0)]
        writer.set_markers({"m": Marker(7, 70)})
        writer.set_markers({"m": Marker(LOST)})  # a marker never goes back
        assert store.marked([], ["m"])[1] == writer.read_markers(["m"]) == [Marker(7, 70)]


def test_8_4_a_watermark_is_refreshed_only_where_its_marker_stands(online_place: StorePlace) -> None:
    with online_place.store() as store:
        store.set_markers({"m": Marker(7, 50), "n": Marker(3)})
        store.refresh_markers({"m": Marker(7, 60), "n": Marker(3, 40)})
        store.refresh_markers({"m": Marker(5, 80)})
        assert store.read_markers(["m", "n", "o"]) == [Marker(7, 80), Marker(3, 40), None]
        for lost in ({"m": Marker(8, 90)}, {"o": Marker(0, 90)}):
            with pytest.raises(StoreError, match="may have lost rows"):
                store.refresh_markers(lost)
        assert store.read_markers(["m", "n", "o"]) == [Marker(7, 80), Marker(3, 40), None]
        store.refresh_markers({})
        store.set_markers({})
        assert store.read_markers([]) == []


def test_what_one_process_published_another_reads_until_it_is_published_again(online_place: StorePlace) -> None:
    with online_place.store() as store:
        for text in (b"one", b"another", b""):
            store.publish(b"note", text)
            assert online_place.rows.get(b"note") == [text]
