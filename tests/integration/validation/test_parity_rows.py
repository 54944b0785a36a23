"""Parity of batch views: the online row is the winner among the log rows that were applied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skewless.contract.keys import marker_key
from skewless.contract.row_layout import compute_checksums
from skewless.contract.rows import RowCodec
from skewless.validation.parity_report import Mismatch, ParityFault, ParityReport
from tests.worlds.parity import ROWS, ParityWorld

FIRST = [(1, 0, 1.5, "a"), (1, 1, 2.5, "b"), (2, 0, None, None), (3, 0, -0.0, "日本")]


@pytest.fixture
def parity_world(server_url: str, tmp_path: Path) -> Iterator[ParityWorld]:
    parity_world = ParityWorld(root=tmp_path, url=server_url)
    parity_world.facts(*FIRST)
    yield parity_world
    parity_world.close()


def only(report: ParityReport, cause: ParityFault) -> Mismatch:
    (item,) = report.views[0].mismatches
    assert item.cause is cause, report.lines()
    assert not report.ok
    return item


def flip(parity_world: ParityWorld, number: int, place: int) -> None:
    row = bytearray(parity_world.stored(parity_world.row_key(number)))
    row[place] ^= 1
    parity_world.redis.set(parity_world.row_key(number), bytes(row))


def rewrite(parity_world: ParityWorld, number: int, place: int, new: bytes) -> bytes:
    """Change bytes of a row, as a writer with another value would have written it; return the row."""
    row = bytearray(parity_world.stored(parity_world.row_key(number)))
    row[place : place + len(new)] = new
    row[40:44] = bytes(4)
    dtype = RowCodec(ROWS).dtype
    fixed, heap = np.frombuffer(bytes(row[: dtype.itemsize]), dtype), np.frombuffer(row[dtype.itemsize :], np.uint8)
    row[40:44] = compute_checksums(fixed, heap, np.array([len(heap)])).tobytes()
    parity_world.redis.set(parity_world.row_key(number), bytes(row))
    return bytes(row)


def value_place() -> int:
    fields = RowCodec(ROWS).dtype.fields
    assert fields is not None
    return int(fields["f0"][1])


def repairs(parity_world: ParityWorld) -> None:
    report = parity_world.compare("facts", repair=True)
    assert (report.as_dict()["repaired"], report.as_dict()["left"], report.ok) == (1, 0, True)
    assert parity_world.compare("facts").ok


def test_rows_of_the_log_are_equal(parity_world: ParityWorld) -> None:
    report = parity_world.compare("facts")
    assert (report.views[0].compared, report.ok) == (3 + 3, True)
    assert report.lines() == ["facts: 6 entities compared, all equal, bit for bit"]
    parity_world.facts(*FIRST, (1, 2, 9.0, "c"), (4, 0, 1.0, "d"))
    assert parity_world.compare("facts").ok


def test_a_flipped_bit_is_damage_wherever_it_is(parity_world: ParityWorld) -> None:
    """In the rank, the view, the run, a number, a text: also one that is no text then."""
    for place in (0, 33, 45, 52, -1):
        flip(parity_world, 3, place)
        item = only(parity_world.compare("facts"), ParityFault.DAMAGED)
        assert item.entity == {"id": 3}
        repairs(parity_world)


def test_another_value_with_its_checksum_is_a_value(parity_world: ParityWorld) -> None:
    row = parity_world.stored(parity_world.row_key(3))
    rewrite(parity_world, 3, value_place() + 7, bytes([row[value_place() + 7] ^ 1]))
    item = only(parity_world.compare("facts"), ParityFault.VALUE)
    assert (item.entity, item.feature, item.online != item.log) == ({"id": 3}, "x", True)
    assert list(item.positions) == [ROWS.partition]
    repairs(parity_world)


def test_the_sign_of_zero_is_a_value(parity_world: ParityWorld) -> None:
    rewrite(parity_world, 3, value_place() + 7, bytes(1))
    item = only(parity_world.compare("facts"), ParityFault.VALUE)
    assert (repr(item.online), repr(item.log)) == ("0.0", "-0.0")
    repairs(parity_world)


def test_a_deleted_row_is_lost(parity_world: ParityWorld) -> None:
    parity_world.redis.delete(parity_world.row_key(1))
    only(parity_world.compare("facts"), ParityFault.LOST_ROW)
    repairs(parity_world)


def test_an_older_row_is_stale(parity_world: ParityWorld) -> None:
    old = parity_world.stored(parity_world.row_key(1))
    parity_world.facts(*FIRST, (1, 2, 9.0, "c"))
    parity_world.redis.set(parity_world.row_key(1), old)
    only(parity_world.compare("facts"), ParityFault.STALE_ROW)
    repairs(parity_world)


def test_what_cannot_be_read_is_damaged(parity_world: ParityWorld) -> None:
    for row in (b"x", b"?" * 90):
        parity_world.redis.set(parity_world.row_key(2), row)
        only(parity_world.compare("facts"), ParityFault.DAMAGED)
        repairs(parity_world)


def test_the_row_of_another_entity_is_a_value(parity_world: ParityWorld) -> None:
    parity_world.redis.set(parity_world.row_key(2), parity_world.stored(parity_world.row_key(1)))
    item = only(parity_world.compare("facts"), ParityFault.VALUE)
    assert "another entity" in item.line()
    repairs(parity_world)


def test_a_row_that_is_newer_than_the_log_is_not_repaired(parity_world: ParityWorld) -> None:
    row = rewrite(parity_world, 1, 24, (10_000).to_bytes(8, "big"))
    report = parity_world.compare("facts", repair=True)
    only(report, ParityFault.AHEAD)
    assert (report.as_dict()["repaired"], report.as_dict()["left"]) == (0, 1)
    assert any("a repair cannot help" in line for line in report.lines())
    assert parity_world.stored(parity_world.row_key(1)) == row


def test_4_5_a_marker_that_the_log_does_not_have_is_a_mismatch_of_each_row(parity_world: ParityWorld) -> None:
    parity_world.redis.set(marker_key(parity_world.plan.project, ROWS), b"10000 1")
    report = parity_world.compare("facts", repair=True)
    assert (report.ok, report.views[0].by_cause) == (False, {"ahead": report.views[0].compared})
    assert any("marker is at 10000" in line for line in report.lines())


def test_rows_that_were_put_before_the_marker_moved_are_no_mismatch(parity_world: ParityWorld) -> None:
    key = marker_key(parity_world.plan.project, ROWS)
    before = parity_world.redis.get(key)
    assert isinstance(before, bytes)
    parity_world.facts(*FIRST, (1, 2, 9.0, "c"), (5, 0, 1.0, "e"))
    parity_world.redis.set(key, before)  # as in the middle of a run
    report = parity_world.compare("facts")
    assert (report.ok, report.views[0].unavailable) == (True, 4 + 3)  # a finished run is known to have gone further
    parity_world.state.database.execute("DELETE FROM coverage")
    report = parity_world.compare("facts")
    assert (report.ok, report.views[0].compared) == (True, 4 + 3)


def test_without_a_marker_nothing_is_compared(parity_world: ParityWorld) -> None:
    parity_world.redis.delete(marker_key(parity_world.plan.project, ROWS))
    report = parity_world.compare("facts")
    assert (report.ok, report.views[0].compared, report.views[0].unavailable) == (True, 0, 6)
