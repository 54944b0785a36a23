"""SEMANTICS 4.2: an event log is compacted under its readers and writers."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from skewless.infra.log.accepted import SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.log.event_log import EventLog

from skewless.contract.errors import StoreError
from skewless.infra.log.compaction import CompactReport
from tests.integration.infra.event_logs import (
    bounds,
    fill,
    folder_of,
    names,
    opened,
    rows,
    values,
)
from tests.worlds.clock import SecondsClock


def test_4_2_compaction_merges_small_files_into_bigger_ones(event_log: EventLog, tmp_path: Path) -> None:
    assert event_log.compact(keep=0) == CompactReport()
    fill(event_log, *[2] * 10)
    assert event_log.compact(keep=3, target_rows=8) == CompactReport(merged=7, written=2, rows=14)
    assert bounds(event_log) == [(0, 7), (8, 13), (14, 15), (16, 17), (18, 19)]
    before = (folder_of(tmp_path) / "manifest.json").read_bytes()
    assert event_log.compact(keep=3, target_rows=8) == CompactReport()
    assert (folder_of(tmp_path) / "manifest.json").read_bytes() == before
    merged = pq.ParquetFile(folder_of(tmp_path) / f"c{0:020d}-{7:020d}.parquet")
    assert merged.schema_arrow.names == ["x", SEQ, KNOWN_AT]
    assert merged.metadata.row_group(0).column(0).compression == "ZSTD"
    assert values(event_log) == list(range(20))


def test_4_2_each_row_is_merged_a_few_times_only(event_log: EventLog) -> None:
    written = 0
    for _ in range(60):
        fill(event_log, 2)
        written += event_log.compact(keep=0, target_rows=10_000).rows
    assert len(event_log.spans()) <= 6
    assert written <= 120 * 6
    assert values(event_log) == list(range(120))


def test_a_row_group_is_bounded_and_a_reader_skips_what_it_does_not_need(event_log: EventLog) -> None:
    event_log.append(rows(*range(150_000)))
    event_log.append(rows(*range(150_000, 230_000)))
    event_log.compact(keep=0)
    [span] = event_log.spans()
    metadata = pq.read_metadata(span.path)
    assert [metadata.row_group(i).num_rows for i in range(3)] == [100_000, 100_000, 30_000]
    assert [part.num_rows for part in event_log.read()] == [100_000, 100_000, 30_000]
    assert [part["x"].to_pylist() for part in event_log.read(199_999, 200_000)] == [[199_999], [200_000]]


def test_4_2_a_reader_keeps_its_files_for_the_grace_time(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock
) -> None:
    fill(event_log, 1, 1, 1)
    reader = opened(tmp_path, clock)
    files = reader.files()
    event_log.compact(keep=1)
    clock.now += 599
    event_log.sweep()
    assert all(Path(path).exists() for path in files)
    clock.now += 2
    event_log.sweep()
    assert [Path(path).exists() for path in files] == [False, False, True]
    assert '"retired": []' in (folder_of(tmp_path) / "manifest.json").read_text()
    assert (bounds(reader), values(reader)) == ([(0, 1), (2, 2)], [0, 1, 2])


def test_4_2_files_that_go_under_a_reader_are_found_in_their_new_place(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock
) -> None:
    fill(event_log, 1, 1, 1, 1)
    reading = opened(tmp_path, clock).read(columns=["x"])
    found = [next(reading)["x"].to_pylist()]
    for keep in (2, 0):
        event_log.compact(keep=keep)
        clock.now += 601
        event_log.sweep()
    found += [part["x"].to_pylist() for part in reading]
    assert found == [[0], [1, 2, 3]]


def test_4_2_a_file_that_goes_while_the_chain_is_followed_is_not_its_end(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(event_log, 1, 1, 1, 1)
    reader, real = opened(tmp_path, clock), pq.read_metadata

    def overtaken(path: Path) -> pq.FileMetaData:
        monkeypatch.setattr(pq, "read_metadata", real)
        found = real(path)
        event_log.compact(keep=1)
        clock.now += 601
        event_log.sweep()
        return found

    monkeypatch.setattr(pq, "read_metadata", overtaken)
    assert bounds(reader) == [(0, 2), (3, 3)]


def test_sweeping_leaves_what_is_not_of_the_log(event_log: EventLog, tmp_path: Path, clock: SecondsClock) -> None:
    fill(event_log, 1, 1)
    strange = ["notes.tmp", "other.parquet", "c1.parquet", "c00000000000000000000-x.parquet"]
    left = [f".{'0a' * 16}.tmp", f"c{0:020d}-{9:020d}.parquet", f"c{2:020d}-{9:020d}.parquet"]
    event_log.compact(keep=0)
    for name in strange + left:
        (folder_of(tmp_path) / name).write_text("")
    clock.now += 601
    event_log.sweep()
    expected = {*strange, f"c{0:020d}-{1:020d}.parquet"}
    assert {path.name for path in folder_of(tmp_path).iterdir() if path.suffix in {".tmp", ".parquet"}} == expected


def test_of_two_compactors_one_does_nothing(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(event_log, 1, 1)
    other, reports, real = opened(tmp_path, clock), list[CompactReport](), os.replace

    def meanwhile(source: Path, target: Path) -> None:
        reports.append(other.compact(keep=0))
        other.sweep()
        real(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    assert event_log.compact(keep=0) == CompactReport(merged=2, written=1, rows=2)
    assert {report.is_busy for report in reports} == {True}
    assert values(other) == [0, 1]


def test_a_compactor_that_no_lock_kept_out_does_not_overwrite_the_manifest(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(event_log, 1, 1, 1)
    other, real = opened(tmp_path, clock), os.replace

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", real)
        # As if the other one ran on another machine.
        (folder_of(tmp_path) / ".compact.lock").unlink()
        assert other.compact(keep=1).written == 1
        real(source, target)

    monkeypatch.setattr(os, "replace", overtaken)
    assert event_log.compact(keep=0) == CompactReport()
    assert bounds(event_log) == bounds(other) == [(0, 1), (2, 2)]
    clock.now += 601
    event_log.sweep()
    assert len(names(tmp_path, "*.parquet")) == 2
    assert values(event_log) == [0, 1, 2]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"generation": 1}'])
def test_a_log_without_its_manifest_does_not_begin_anew(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, text: str | None
) -> None:
    fill(event_log, 1, 1)
    event_log.compact(keep=0)
    clock.now += 601
    event_log.sweep()
    manifest = folder_of(tmp_path) / "manifest.json"
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text)
    for one in (event_log, opened(tmp_path, clock)):
        with pytest.raises(StoreError, match=f"log manifest {manifest}: is (corrupt|missing)"):
            one.append(rows(1))
