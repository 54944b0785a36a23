"""The store behind ``dynamodb://``: newer wins, and a position counts once, also among writers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.store import open_blocking_reader, open_online_store
from skewless_dynamodb.store import DynamoStore
from tests.contract.store import StorePlace, ranked


def test_2_3_newer_wins_among_writers_at_once(online_place: StorePlace) -> None:
    def write(first: int) -> int:
        with online_place.store() as store:
            assert isinstance(store, DynamoStore)
            assert store.marker("m") in {None, *range(40)}
            written = store.put([b"k"] * 10, [ranked(i) for i in range(first, 40, 4)])
            store.set_markers({"m": Marker(first + 36)})
            return written

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(4)))
    with (
        closing(open_blocking_reader(online_place.url)) as reader,
        closing(open_online_store(online_place.url)) as store,
    ):
        assert reader.get_with_markers([b"k"], ["m"]) == ([ranked(39)], [Marker(39)])
        assert store.put([b"k", b"k"], [ranked(39, body=b"other"), ranked(12)]) == 0
    assert 10 <= sum(written) <= 40
