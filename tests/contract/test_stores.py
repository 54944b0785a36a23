"""The contract of every online store for repairs, deletion, lost writes and the scheduler's lease."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.online.port import LOST, Marker, StoreLease
from skewless.infra.online.store import open_lease
from tests.contract.store import StorePlace, ranked
from tests.worlds.waiting import until

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


def lease(online_place: StorePlace, holder: str, ttl_s: float = 60.0, project: str = "p") -> closing[StoreLease]:
    return closing(open_lease(online_place.url, project, holder, ttl_s))


def test_one_holds_the_lease_until_it_is_released_and_tokens_rise(online_place: StorePlace) -> None:
    with lease(online_place, "a") as a, lease(online_place, "b") as b:
        assert (a.take(0), b.take(0)) == (1, None)
        assert (a.read_holder(), a.take(0)) == ("a", 1)
        assert (a.renew(), b.renew()) == (True, False)
        b.release()
        assert b.take(0) is None
        a.release()
        assert (b.read_holder(), b.take(0), a.renew()) == (None, 2, False)


def test_projects_have_leases_of_their_own(online_place: StorePlace) -> None:
    with lease(online_place, "a") as a, lease(online_place, "b", project="q") as b:
        assert (a.take(0), b.take(0)) == (1, 1)


def test_a_silent_holder_is_replaced_and_finds_out(online_place: StorePlace) -> None:
    with lease(online_place, "a", ttl_s=0.5) as a, lease(online_place, "b", ttl_s=0.5) as b:
        assert a.take(0) == 1
        deadline = time.monotonic() + 30
        while (token := b.take(0)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (token, a.renew()) == (2, False)
        a.release()
    with lease(online_place, "c") as c:
        until(lambda: c.take(2) == 3)


def test_a_store_that_lost_its_data_gives_no_token_twice(online_place: StorePlace) -> None:
    with lease(online_place, "a") as a, lease(online_place, "b") as b:
        assert a.take(6) == 7
        online_place.lose()
        assert (a.renew(), a.read_holder(), b.take(7)) == (False, None, 8)


def test_a_lease_in_a_store_that_is_away_is_not_asked(online_place: StorePlace) -> None:
    with closing(open_lease(online_place.away, "p", "a", 60.0)) as away:
        for ask in (away.renew, away.release, away.read_holder, lambda: away.take(0)):
            with pytest.raises(StoreError, match="did not answer"):
                ask()
