"""Parity of windowed views: clean states, every kind of damage, the repair, and a worker that goes on meanwhile."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.errors import RequestError
from skewless.contract.status import BoolArray
from skewless.contract.windows.hops import SECOND
from skewless.infra.log.compaction import compact
from skewless.infra.models.verdicts.last_verdicts import LastParity, read_last
from skewless.infra.reads.online.marker_history import MarkerStatus
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.reads.online.window_states import WindowStates
from skewless.validation.parity import open_checker
from skewless.validation.parity_checker import ParityChecker
from skewless.validation.parity_report import ParityFault, ParityReport
from tests.windows.log import signed
from tests.worlds.parity import HOUR, MINUTE, NOW, VIEW, ParityWorld, busy_hour


def checker(world: ParityWorld) -> ParityChecker:
    """Return the checker of the view."""
    parity = world.parity
    return open_checker(parity.plan, VIEW, views=parity.views, reader=parity.reader, clock=parity.clock)


@pytest.fixture
def parity_world(server_url: str, tmp_path: Path) -> Iterator[ParityWorld]:
    parity_world = ParityWorld(root=tmp_path, url=server_url)
    parity_world.accept(busy_hour(), apply=False)
    parity_world.accept([("UA", NOW - 2 * MINUTE, 4.0, 3), ("only here", NOW - MINUTE, 1.0, 1)], "t/1", apply=False)
    parity_world.bootstrap()
    yield parity_world
    parity_world.close()


def only(report: ParityReport, cause: ParityFault) -> None:
    """The one mismatch there is has this cause."""
    assert {item.cause for view in report.views for item in view.mismatches} == {cause}, report.lines()
    assert not report.ok


def test_clean_states_are_equal_while_time_goes_by_and_events_come(parity_world: ParityWorld) -> None:
    report = parity_world.compare()
    facts, windows = report.views
    assert (windows.view, windows.compared, windows.unavailable) == ("carrier_now", 4 + 3, 0)
    assert (facts.view, facts.compared, facts.unavailable) == ("facts", 0, 3)
    assert report.ok
    for step in range(1, 6):
        parity_world.clock.set(NOW + step * 7 * MINUTE)
        late = NOW - 30 * MINUTE
        parity_world.accept([("AA", NOW + step * MINUTE, 0.1 * step, step), ("UA", late, None, 9)], f"t/{step % 2}")
        assert parity_world.compare("carrier_now").ok
    parity_world.means.roll(
        parity_world.writer, _names(parity_world, "AA", "UA"), parity_world.clock.now_us() - 2 * SECOND
    )
    assert parity_world.compare("carrier_now").views[0].mismatches == []


def test_an_event_that_is_logged_and_not_applied_is_no_mismatch(parity_world: ParityWorld) -> None:
    parity_world.accept([("AA", NOW - 1, 5.0, 5), ("new", NOW - 1, 5.0, 5)], apply=False)
    assert parity_world.compare().ok


def test_which_entities_are_compared_follows_from_the_seed(parity_world: ParityWorld) -> None:
    parity_world.accept([(f"c{i}", NOW - MINUTE, 1.0, 1) for i in range(200)])
    first, again, other = (checker(parity_world).sample(20, seed).to_pylist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 20 + 3
    assert {"carrier": "AA"} in first  # most events
    assert sum(item["carrier"].startswith("nobody") for item in first) == 3


@pytest.mark.parametrize("bit", [0, pytest.param(5, marks=pytest.mark.soak), pytest.param(62, marks=pytest.mark.soak)])
def test_a_flipped_bit_of_a_value_is_found_and_repaired(parity_world: ParityWorld, bit: int) -> None:
    _flip(parity_world, bit)
    report = parity_world.compare()
    only(report, ParityFault.VALUE)
    (item,) = report.views[1].mismatches
    assert (item.entity, item.feature, item.log) == ({"carrier": "AA"}, "n_1h", 36.0)
    assert item.positions == {"events/landings/t/0": 59}
    assert "--repair" in report.lines()[-2]
    _repairs(parity_world)


def test_a_deleted_state_is_absent(parity_world: ParityWorld) -> None:
    parity_world.redis.delete(parity_world.key("UA"))
    only(parity_world.compare(), ParityFault.ABSENT)
    _repairs(parity_world)


def test_an_older_state_has_lost_events(parity_world: ParityWorld) -> None:
    old = parity_world.stored(parity_world.key("AA"))
    parity_world.accept([("AA", NOW - MINUTE, 77.0, 2)])
    assert parity_world.compare().ok
    parity_world.redis.set(parity_world.key("AA"), old)
    report = parity_world.compare()
    only(report, ParityFault.LOST)
    assert "events/landings/t/0 up to 60" in report.views[1].mismatches[0].line()
    _repairs(parity_world)


def test_a_made_up_record_is_a_value(parity_world: ParityWorld) -> None:
    key = parity_world.key("UA")
    state = parity_world.stored(key)
    begin = 24 + 16 * struct.unpack_from("<I", state, 8)[0]
    parity_world.redis.append(key, state[begin : begin + parity_world.means.codec._record * 8])
    only(parity_world.compare(), ParityFault.VALUE)
    _repairs(parity_world)


def test_positions_that_the_log_does_not_have_are_ahead(parity_world: ParityWorld) -> None:
    key = parity_world.key("UA")
    state = bytearray(parity_world.stored(key))
    place = 24 + 16 * [word for word, _ in struct.iter_unpack("<qq", state[24:56])].index(signed("events/landings/t/0"))
    struct.pack_into("<q", state, place + 8, 10_000)
    parity_world.redis.set(key, bytes(state))
    only(parity_world.compare(), ParityFault.AHEAD)
    struct.pack_into("<q", state, place, 12345)  # a partition that nobody has
    parity_world.redis.set(key, bytes(state))
    only(parity_world.compare(), ParityFault.AHEAD)
    _repairs(parity_world)


def test_a_store_that_was_filled_from_another_log_is_not_repaired(parity_world: ParityWorld) -> None:
    parity_world.redis.set(parity_world.marker(), b"10000")
    state = bytearray(parity_world.stored(parity_world.key("only here")))
    struct.pack_into("<q", state, 32, 10_000)
    parity_world.redis.set(parity_world.key("only here"), bytes(state))
    report = parity_world.compare(repair=True)
    only(report, ParityFault.AHEAD)
    assert report.as_dict()["left"] == 1
    assert "a repair cannot help" in report.lines()[-2]
    assert parity_world.stored(parity_world.key("only here")) == bytes(state)


def test_what_cannot_be_read_is_damaged(parity_world: ParityWorld) -> None:
    for state in (b"", b"x", b"\0" * 24, b"?" * 200):
        parity_world.redis.set(parity_world.key("UA"), state)
        only(parity_world.compare(), ParityFault.DAMAGED)
        _repairs(parity_world)


def test_a_state_cut_short_and_one_from_the_future_are_damaged(parity_world: ParityWorld) -> None:
    key = parity_world.key("UA")
    state = parity_world.stored(key)
    parity_world.redis.set(key, state[:-3])
    only(parity_world.compare(), ParityFault.DAMAGED)
    parity_world.redis.set(key, state[:16] + struct.pack("<q", NOW + HOUR) + state[24:])
    only(parity_world.compare(), ParityFault.DAMAGED)
    _repairs(parity_world)


def test_a_state_that_is_a_little_ahead_of_this_clock_is_unavailable_as_for_predictions(
    parity_world: ParityWorld,
) -> None:
    key = parity_world.key("UA")
    state = parity_world.stored(key)
    parity_world.redis.set(key, state[:16] + struct.pack("<q", NOW + SECOND) + state[24:])
    report = parity_world.compare("carrier_now")
    assert (report.ok, report.views[0].compared, report.views[0].unavailable) == (True, 6, 1)
    parity_world.clock.set(NOW + 2 * SECOND)
    assert parity_world.compare("carrier_now").views[0].compared == 7


def test_any_flipped_byte_is_found_or_changes_nothing(parity_world: ParityWorld) -> None:
    """No damage makes parity itself fail."""
    chance = np.random.default_rng(7)
    key, state = parity_world.key("AA"), parity_world.stored(parity_world.key("AA"))
    for place in chance.integers(0, len(state), 8).tolist():
        damaged = bytearray(state)
        damaged[place] ^= 1 << int(chance.integers(8))
        parity_world.redis.set(key, bytes(damaged))
        assert len(parity_world.compare("carrier_now").views[0].mismatches) <= 1
    parity_world.compare(repair=True)
    assert parity_world.compare().ok


def test_any_flipped_byte_of_a_state_leaves_the_others_of_a_request_alone(parity_world: ParityWorld) -> None:
    """As a server reads: no damage is an exception, and each other entity gets what it got."""
    windows = WindowStates(parity_world.plan)
    windows.load_generations(parity_world.reader.get_with_markers(windows.pointers, [])[0])
    names = windows.names({"carrier": ["AA", "UA"]}, 2)
    stored = parity_world.reader.get([name or b"" for name in names])
    whole = windows.read(names, stored, MarkerStatus(), NOW).reads[VIEW.name]
    state = stored[0]
    assert state is not None
    chance, unread = np.random.default_rng(3), 0
    for place in [*range(40), *chance.integers(0, len(state), 200).tolist()]:
        damaged = bytearray(state)
        damaged[place] ^= 1 << int(chance.integers(8))
        with np.errstate(all="ignore"):  # damaged words make any number
            got = windows.read(names, [bytes(damaged), stored[1]], MarkerStatus(), NOW)
        read = got.reads[VIEW.name]
        unread += got.corrupt
        assert read.unavailable is not None
        assert not read.unavailable[1]
        for column in VIEW.features:
            assert repr(read.values[column.name][1]) == repr(whole.values[column.name][1]), place
    assert unread
    assert windows.read(names, [state[:-3], stored[1]], MarkerStatus(), NOW).corrupt == 1


def test_without_a_marker_nothing_is_compared_and_nothing_is_a_mismatch(parity_world: ParityWorld) -> None:
    parity_world.redis.delete(parity_world.marker())
    report = parity_world.compare("carrier_now")
    assert (report.views[0].compared, report.views[0].unavailable, report.ok) == (0, 7, True)
    assert "UNAVAILABLE" in report.lines()[0]
    parity_world.redis.flushdb()
    assert parity_world.compare("carrier_now").views[0].unavailable == 7


def test_a_marker_that_went_back_is_unavailable_too(parity_world: ParityWorld) -> None:
    parity_world.accept([("AA", NOW - 1, 1.0, 1)])
    parity_world.redis.set(parity_world.marker(), b"3")
    assert parity_world.compare("carrier_now").views[0].unavailable == 7


def test_a_state_of_an_entity_that_has_no_event_is_emptied(parity_world: ParityWorld) -> None:
    stranger = checker(parity_world).sample(100, 5).to_pylist()
    name = next(item["carrier"] for item in stranger if item["carrier"].startswith("nobody"))
    parity_world.redis.set(parity_world.key(name), parity_world.stored(parity_world.key("AA")))
    report = parity_world.compare("carrier_now", repair=True, seed=5)
    only_cause = [item.cause for item in report.views[0].mismatches]
    assert only_cause == [ParityFault.VALUE]
    assert report.views[0].left == []
    parity_world.accept([(name, NOW - 1, 2.0, 2)])
    assert parity_world.compare("carrier_now", seed=5).ok


def test_a_repair_leaves_alone_what_a_worker_changes_meanwhile(
    parity_world: ParityWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flip(parity_world, 3)
    replaces: list[int] = []
    whole = RedisWriter.replace

    def meddled(self: RedisWriter, *arguments: Any) -> BoolArray:  # noqa: ANN401 - handed on
        if not replaces:
            parity_world.accept([("AA", NOW - MINUTE, 6.0, 6)])
        done = whole(self, *arguments)
        replaces.append(int(done.sum()))
        return done

    monkeypatch.setattr(RedisWriter, "replace", meddled)
    report = parity_world.compare(repair=True)
    assert replaces == [0, 1]
    assert report.as_dict()["repaired"] == 1
    assert parity_world.compare().ok


def test_beside_a_worker_that_goes_on_nothing_differs(parity_world: ParityWorld) -> None:
    stop = threading.Event()

    def work() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            now = parity_world.clock.now_us()
            parity_world.accept([("AA", now - 2 * SECOND + i, 0.1 * i, i), (f"n{i % 9}", now - HOUR, 1.0, i)])
            parity_world.clock.set(now + SECOND)  # so that states are rolled up

    worker = threading.Thread(target=work)
    other = ParityWorld(root=parity_world.root, url=parity_world.url, clock=parity_world.clock)
    worker.start()
    try:
        for turn in range(5):
            report = other.compare("carrier_now", repair=True)
            assert report.as_dict()["mismatches"] == 0, report.lines()
            if turn in {1, 3}:
                compact(other.log(), keep=2)
                other.bootstrap()
    finally:
        stop.set()
        worker.join()
        other.close()
    assert parity_world.generation == 3
    assert parity_world.log().next_seq() > 60 + 10


def test_the_verdict_is_kept_by_view(parity_world: ParityWorld) -> None:
    parity_world.redis.delete(parity_world.key("UA"))
    parity_world.compare()
    parity_world.compare("facts")
    kept = read_last(parity_world.state, LastParity)
    assert (kept["carrier_now"].mismatches, kept["carrier_now"].by_cause) == (1, {"absent": 1})
    assert (kept["carrier_now"].hash, kept["facts"].unavailable) == (VIEW.hash, 3)
    parity_world.compare(repair=True)
    assert read_last(parity_world.state, LastParity)["carrier_now"].mismatches == 0


def test_the_report_is_plain_values(parity_world: ParityWorld) -> None:
    parity_world.redis.delete(parity_world.key("日本"))
    body = json.loads(json.dumps(parity_world.compare().as_dict()))
    assert (body["compared"], body["mismatches"], body["by_cause"]) == (7, 1, {"absent": 1})
    assert body["views"]["carrier_now"]["mismatches"] == 1
    assert body["examples"][0]["entity"] == {"carrier": "日本"}


def test_a_view_that_is_not_there_is_refused(parity_world: ParityWorld) -> None:
    with pytest.raises(RequestError, match="use one of: facts, carrier_now"):
        parity_world.compare("nothing")


def _names(parity_world: ParityWorld, *carriers: str) -> pa.Array:
    return pa.array([parity_world.key(carrier) for carrier in carriers], pa.large_binary())


def _flip(parity_world: ParityWorld, bit: int) -> None:
    """Flip a bit of the first word of the first record of a state: a count."""
    key = parity_world.key("AA")
    state = bytearray(parity_world.stored(key))
    (slots,) = struct.unpack_from("<I", state, 8)
    state[24 + 16 * slots + 8 + bit // 8] ^= 1 << bit % 8
    parity_world.redis.set(key, bytes(state))


def _repairs(parity_world: ParityWorld) -> None:
    """A repair makes it equal, now and later."""
    report = parity_world.compare(repair=True)
    assert (report.as_dict()["repaired"], report.as_dict()["left"], report.ok) == (1, 0, True)
    assert parity_world.compare().ok
    parity_world.accept([("UA", NOW - SECOND, 8.0, 1), ("AA", NOW - SECOND, 8.0, 1)])
    assert parity_world.compare().ok
