"""Parity of batch views: the online row is the winner among the log rows that were applied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.keys import marker_key
from skewless.contract.rows import RowCodec
from skewless.infra.online.private_server import PrivateServer
from skewless.validation.parity_report import Fault, Mismatch, ParityReport
from tests.worlds.parity import ROWS, World


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = PrivateServer(tmp_path_factory.mktemp("redis"), grace_s=0.5)
    yield server.ensure()
    server.stop()


FIRST = [(1, 0, 1.5, "a"), (1, 1, 2.5, "b"), (2, 0, None, None), (3, 0, -0.0, "日本")]


@pytest.fixture
def world(url: str, tmp_path: Path) -> Iterator[World]:
    world = World(root=tmp_path, url=url)
    world.redis.flushdb()
    world.facts(*FIRST)
    yield world
    world.close()


def only(report: ParityReport, cause: Fault) -> Mismatch:
    (item,) = report.views[0].mismatches
    assert item.cause is cause, report.lines()
    assert not report.ok
    return item


def flip(world: World, number: int, place: int) -> None:
    row = bytearray(world.stored(world.row_key(number)))
    row[place] ^= 1
    world.redis.set(world.row_key(number), bytes(row))


def unsum(world: World, number: int) -> None:
    """Make a row one of a release before."""
    row = world.stored(world.row_key(number))
    world.redis.set(world.row_key(number), row[:40] + bytes(4) + row[44:])


def value_place() -> int:
    fields = RowCodec(ROWS).dtype.fields
    assert fields is not None
    return int(fields["f0"][1])


def repairs(world: World) -> None:
    report = world.compare("facts", repair=True)
    assert (report.as_dict()["repaired"], report.as_dict()["left"], report.ok) == (1, 0, True)
    assert world.compare("facts").ok


def test_rows_of_the_log_are_equal(world: World) -> None:
    report = world.compare("facts")
    assert (report.views[0].compared, report.ok) == (3 + 3, True)
    assert report.lines() == ["facts: 6 entities compared, every one equal, bit for bit"]
    world.facts(*FIRST, (1, 2, 9.0, "c"), (4, 0, 1.0, "d"))
    assert world.compare("facts").ok


@pytest.mark.parametrize("place", [0, 33, 45, 52, -1])
def test_a_flipped_bit_is_damage_wherever_it_is(world: World, place: int) -> None:
    """In the rank, the view, the run, a number, a text: also one that is no text then."""
    flip(world, 3, place)
    item = only(world.compare("facts"), Fault.DAMAGED)
    assert item.entity == {"id": 3}
    repairs(world)


def test_a_flipped_bit_of_a_row_without_a_checksum_is_a_value(world: World) -> None:
    unsum(world, 3)
    flip(world, 3, value_place() + 7)
    item = only(world.compare("facts"), Fault.VALUE)
    assert (item.entity, item.feature, item.online != item.log) == ({"id": 3}, "x", True)
    assert list(item.positions) == [ROWS.partition]
    repairs(world)


def test_the_sign_of_zero_is_a_value(world: World) -> None:
    row = bytearray(world.stored(world.row_key(3)))
    row[value_place() + 7] = 0
    row[40:44] = bytes(4)
    world.redis.set(world.row_key(3), bytes(row))
    item = only(world.compare("facts"), Fault.VALUE)
    assert (repr(item.online), repr(item.log)) == ("0.0", "-0.0")
    repairs(world)


def test_a_deleted_row_is_lost(world: World) -> None:
    world.redis.delete(world.row_key(1))
    only(world.compare("facts"), Fault.LOST_ROW)
    repairs(world)


def test_an_older_row_is_stale(world: World) -> None:
    old = world.stored(world.row_key(1))
    world.facts(*FIRST, (1, 2, 9.0, "c"))
    world.redis.set(world.row_key(1), old)
    only(world.compare("facts"), Fault.STALE_ROW)
    repairs(world)


@pytest.mark.parametrize("row", [b"x", b"?" * 90])
def test_what_cannot_be_read_is_damaged(world: World, row: bytes) -> None:
    world.redis.set(world.row_key(2), row)
    only(world.compare("facts"), Fault.DAMAGED)
    repairs(world)


def test_the_row_of_another_entity_is_a_value(world: World) -> None:
    world.redis.set(world.row_key(2), world.stored(world.row_key(1)))
    item = only(world.compare("facts"), Fault.VALUE)
    assert "another entity's" in item.line()
    repairs(world)


def test_a_row_that_is_newer_than_the_log_is_not_repaired(world: World) -> None:
    unsum(world, 1)
    row = bytearray(world.stored(world.row_key(1)))
    row[24:32] = (10_000).to_bytes(8, "big")
    world.redis.set(world.row_key(1), bytes(row))
    report = world.compare("facts", repair=True)
    only(report, Fault.AHEAD)
    assert (report.as_dict()["repaired"], report.as_dict()["left"]) == (0, 1)
    assert any("a repair would not help" in line for line in report.lines())
    assert world.stored(world.row_key(1)) == bytes(row)


def test_rows_that_were_put_before_the_marker_moved_are_no_mismatch(world: World) -> None:
    key = marker_key(world.plan.project, ROWS)
    before = world.redis.get(key)
    assert isinstance(before, bytes)
    world.facts(*FIRST, (1, 2, 9.0, "c"), (5, 0, 1.0, "e"))
    world.redis.set(key, before)  # as in the middle of a run
    report = world.compare("facts")
    assert (report.ok, report.views[0].unavailable) == (True, 4 + 3)  # a finished run is known to have gone further
    (world.state / "runs").rename(world.state / "other")
    report = world.compare("facts")
    assert (report.ok, report.views[0].compared) == (True, 4 + 3)


def test_without_a_marker_nothing_is_compared(world: World) -> None:
    world.redis.delete(marker_key(world.plan.project, ROWS))
    report = world.compare("facts")
    assert (report.ok, report.views[0].compared, report.views[0].unavailable) == (True, 0, 6)
