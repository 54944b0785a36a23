"""What batches read, with and without a cache: the same values, and never a watermark that is too young."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from skewless.contract.clock import ManualClock
from skewless.infra.reads.online.marker_history import MarkerHistory, MarkerStatus
from skewless.infra.reads.online.port import Marker
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.feature_reads import Breaker, FeatureCache, FeatureReads, StoredRows
from tests.memory_store import MemoryReader, MemoryStore

AGE = 10


class ReadDesk:
    """A store in memory with two views, the rows of which begin with the names of their markers."""

    def __init__(self, *, cached: bool = True) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock(1_000)
        cache = FeatureCache(max_age_us=AGE, entries=100, metrics=Metrics()) if cached else None
        self._reads = FeatureReads(
            online=MemoryReader(self.store),
            clock=self.clock,
            marker_history=MarkerHistory(),
            breaker=Breaker(failures=1, seconds=1.0),
            cache=cache,
        )

    def put(self, **marks: int) -> None:
        """Let a view be up to date at some time, and its rows say so."""
        for name, watermark in marks.items():
            self.store.markers[name] = Marker(1, watermark)
            for i in range(3):
                self.store.rows[f"{name}{i}".encode()] = b"%d" % watermark

    def read(self, keys: Sequence[bytes], markers: Sequence[str] = ("m", "n")) -> StoredRows:
        return asyncio.run(self._reads.read(keys, markers, self.clock.now_us()))


@pytest.mark.parametrize("cached", [True, False])
def test_8_4_what_is_read_comes_with_its_watermarks(*, cached: bool) -> None:
    desk = ReadDesk(cached=cached)
    desk.put(m=900, n=950)
    read = desk.read([b"m0", b"n0"])
    assert read.marker_status == MarkerStatus(set(), {"m": 900, "n": 950})
    assert read.values == {b"m0": b"900", b"n0": b"950"}
    del desk.store.markers["n"]
    assert desk.read([b"m1"]).marker_status == MarkerStatus({"n"}, {"m": 900})


def test_8_4_values_that_were_kept_keep_their_watermarks() -> None:
    desk = ReadDesk()
    desk.put(m=900, n=900)
    desk.read([b"m0", b"n0"])
    desk.clock.set(1_005)
    desk.put(m=1_004, n=1_005)
    assert desk.read([b"m0", b"n0"]).marker_status.watermarks == {"m": 900, "n": 900}
    mixed = desk.read([b"m0", b"n1"])
    assert mixed.values == {b"m0": b"900", b"n1": b"1005"}
    assert mixed.marker_status.watermarks == {"m": 900, "n": 900}, "which value is of which view is not known here"
    desk.clock.set(1_011)
    assert desk.read([b"m0", b"n1"]).marker_status.watermarks == {"m": 1_004, "n": 1_005}


def test_8_4_what_is_read_with_a_loss_is_not_kept() -> None:
    desk = ReadDesk()
    desk.put(m=900, n=900)
    desk.store.markers["n"] = Marker(5, 900)
    desk.read([b"m0"])
    desk.store.markers["n"] = Marker(4, 999)
    assert desk.read([b"n1"]).marker_status.lost == {"n"}
    desk.store.markers["n"] = Marker(5, 999)
    desk.store.rows[b"n1"] = b"right"
    assert desk.read([b"n1"]).values == {b"n1": b"right"}


@pytest.mark.parametrize("keys", [[], [b"m0"]], ids=["no key at all", "all were read for a model of fewer views"])
def test_8_4_every_marker_that_is_asked_for_is_known_where_the_store_has_it(keys: list[bytes]) -> None:
    """Rows without a key ask for nothing of a view; it is not frozen for that."""
    desk = ReadDesk()
    desk.put(m=900, n=950)
    desk.read([b"m0"], ["m"])
    assert desk.read(keys).marker_status.watermarks == {"m": 900, "n": 950}


@pytest.mark.parametrize("seed", range(20))
def test_8_4_no_value_is_older_than_the_watermark_that_comes_with_it(seed: int) -> None:
    """Every value is its view's watermark of when it was written, so that it can be compared."""
    chance, desk = random.Random(seed), ReadDesk()
    desk.put(m=990, n=990)
    for _ in range(200):
        desk.clock.set(desk.clock.now_us() + chance.randrange(6))
        if chance.random() < 0.5:
            desk.put(**{chance.choice("mn"): desk.clock.now_us()})
        keys = chance.sample([b"m0", b"m1", b"m2", b"n0", b"n1", b"n2"], chance.randrange(1, 6))
        markers = sorted({key[:1].decode() for key in keys} | set(chance.choice(["", "m", "n", "mn"])))
        read = desk.read(keys, markers)
        assert read.values.keys() == set(keys)
        for key, value in read.values.items():
            assert int(value or b"") >= read.marker_status.watermarks[key[:1].decode()], (key, value, read)
            assert desk.clock.now_us() - AGE <= read.read_start <= read.read_end == desk.clock.now_us()
