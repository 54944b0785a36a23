"""SEMANTICS 2.6: when the applying of each position of an event log ended."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from skewless.infra.log.accepted import SEQ
from skewless.infra.log.ends import KNOWN_AT, add_known_at, ends_table, resolve_overlaps
from skewless.infra.log.event_log import EventLog

from skewless.contract.errors import StoreError
from tests.integration.infra.event_logs import (
    PARTITION,
    fill,
    fill_disk,
    folder_of,
    opened,
    read,
    rows,
)
from tests.worlds.clock import SecondsClock


def test_2_6_a_row_is_known_when_its_first_apply_ended(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock
) -> None:
    fill(event_log, 2, 2, 2, 2)
    assert event_log.read_ends().num_rows == 0
    for first, last, ended in ((0, 1, 10), (4, 5, 30), (2, 5, 40), (0, 5, 50)):
        event_log.record_end(first, last, ended)
    ranges = [(0, 1, 10), (2, 3, 40), (4, 5, 30)]
    assert [tuple(row.values()) for row in event_log.read_ends().to_pylist()] == ranges
    expected = [10, 10, 40, 40, 30, 30, None, None]
    assert [row[KNOWN_AT] for row in read(event_log, columns=[KNOWN_AT])] == expected
    event_log.compact(keep=1, target_rows=4)
    other = opened(tmp_path, clock)
    assert read(other, columns=[KNOWN_AT, "x"]) == [{KNOWN_AT: at, "x": i} for i, at in enumerate(expected)]
    assert other.read_ends().num_rows == 0
    assert (folder_of(tmp_path) / "ends.bin").stat().st_size == 0
    with pytest.raises(ValueError, match="not a range"):
        event_log.record_end(3, 2, 1)


def test_2_6_an_end_that_came_after_the_compaction_counts(event_log: EventLog) -> None:
    fill(event_log, 2, 2, 2)
    event_log.record_end(0, 1, 10)
    event_log.compact(keep=1, target_rows=4)
    event_log.record_end(1, 4, 20)
    expected = [10, 10, 20, 20, 20, None]
    for _ in range(3):
        assert event_log.read_ends().to_pylist() == [{"first": 2, "last": 4, "ended_us": 20}]
        assert [row[KNOWN_AT] for row in read(event_log, columns=[KNOWN_AT])] == expected
        event_log.compact(keep=1, target_rows=4)
    event_log.compact(keep=0, target_rows=100)
    fill(event_log, 9)
    event_log.compact(keep=0, target_rows=100)
    assert event_log.read_ends().num_rows == 0
    assert [row[KNOWN_AT] for row in read(event_log, columns=[KNOWN_AT])] == expected + [None] * 9


@pytest.mark.parametrize("torn", [b"\0" * 28, b"\0" * 300, b"abc", b"\xff" * 27])
def test_a_torn_record_is_ignored_and_overwritten(event_log: EventLog, tmp_path: Path, torn: bytes) -> None:
    event_log.record_end(0, 1, 10)
    ends = folder_of(tmp_path) / "ends.bin"
    with ends.open("ab") as file:
        file.write(torn)
    assert event_log.read_ends().to_pylist() == [{"first": 0, "last": 1, "ended_us": 10}]
    event_log.record_end(2, 3, 20)
    assert ends.stat().st_size == 2 * 28
    assert event_log.read_ends()["ended_us"].to_pylist() == [10, 20]
    damaged = bytearray(ends.read_bytes())
    damaged[3] ^= 1
    ends.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"log file .*ends\.bin: is corrupt"):
        event_log.read_ends()


def test_an_end_record_is_28_little_endian_bytes(event_log: EventLog, tmp_path: Path) -> None:
    event_log.record_end(1, 2, 3)
    data = (folder_of(tmp_path) / "ends.bin").read_bytes()
    assert np.frombuffer(data[:24], "<i8").tolist() == [1, 2, 3]
    assert len(data) == 28


def test_ends_may_be_made_durable_with_each_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event_log, synced = EventLog(tmp_path, PARTITION, sync_ends=True), list[int]()
    monkeypatch.setattr(os, "fdatasync", synced.append)
    event_log.append(rows(1))
    event_log.record_end(0, 0, 1)
    assert synced == []
    event_log.append(rows(2))
    assert len(synced) == 1
    monkeypatch.setattr(os, "fdatasync", fill_disk)
    with pytest.raises(StoreError, match=r"ends\.bin"):
        event_log.append(rows(3))


def test_2_6_the_first_of_overlapping_records_wins() -> None:
    chance = np.random.default_rng(7)
    for _ in range(50):
        first = chance.integers(0, 40, 12)
        table = {"first": first, "last": first + chance.integers(0, 9, 12), "ended_us": np.arange(12)}
        records = np.zeros(12, [("first", "<i8"), ("last", "<i8"), ("ended_us", "<i8")])
        expected: list[int | None] = [None] * 50
        for name, column in table.items():
            records[name] = column
        for one in reversed(range(12)):
            expected[table["first"][one] : table["last"][one] + 1] = [one] * (table["last"][one] + 1 - first[one])
        merged = resolve_overlaps(records)
        assert (merged["first"][1:] > merged["last"][:-1]).all()
        rows_of = pa.table({SEQ: pa.array(range(50), pa.int64())})
        assert add_known_at(rows_of, ends_table(merged))[KNOWN_AT].to_pylist() == expected
