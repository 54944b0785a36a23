"""SEMANTICS 4.2: a log is compacted under its readers and writers."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import CompactionReport, compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.objects import FolderStorage, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS
from tests.integration.infra.partition_logs import (
    bounds,
    fill,
    listed,
    objects,
    opened,
    rows,
    sweep,
    values,
)
from tests.servers.postgres import ON_SQLITE


def test_4_2_compaction_merges_small_segments_into_larger_ones(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    assert compact(partition_log, keep=0) == CompactionReport()
    fill(partition_log, *[2] * 10, known_us=1)
    assert compact(partition_log, keep=3, target_rows=8) == CompactionReport(merged=7, written=2, rows=14)
    assert bounds(partition_log) == [(0, 7), (8, 13), (14, 15), (16, 17), (18, 19)]
    before = partition_log.segments()
    assert compact(partition_log, keep=3, target_rows=8) == CompactionReport()
    assert partition_log.segments() == before
    with pq.ParquetFile(log_state / before[0].stored.name) as merged:
        assert merged.schema_arrow.names == ["x", SEQ, KNOWN_AT]
        assert merged.metadata.row_group(0).column(0).compression == "ZSTD"
    assert values(partition_log) == list(range(20))


@ON_SQLITE
def test_4_2_each_row_is_merged_a_few_times_only(partition_log: PartitionLog) -> None:
    written = 0
    for _ in range(60):
        fill(partition_log, 2, known_us=1)
        written += compact(partition_log, keep=0, target_rows=10_000).rows
    assert len(partition_log.segments()) <= 6
    assert written <= 120 * 6
    assert values(partition_log) == list(range(120))


def test_only_neighbours_of_one_group_are_merged(partition_log: PartitionLog) -> None:
    fill(partition_log, 1, 1, known_us=1)
    fill(partition_log, 1, 1)
    assert compact(partition_log, keep=0).merged == 2
    assert bounds(partition_log) == [(0, 1), (2, 2), (3, 3)]
    partition_log.catalog.mark_proven(partition_log.partition, [partition_log.segments()[1].stored.name])
    report = compact(partition_log, keep=0, group=lambda segment: segment.known_us)
    assert report.merged == 0
    assert compact(partition_log, keep=0, group=lambda segment: segment.known_us is None).merged == 2
    assert [segment.is_proven for segment in partition_log.segments()] == [False, False]


def test_a_row_group_is_bounded_and_a_reader_skips_others(partition_log: PartitionLog, log_state: ProjectState) -> None:
    for bound in ((0, 150_000), (150_000, 230_000)):
        segment = partition_log.append(rows(*range(*bound)))
        partition_log.record_end(segment.first, segment.last, 1)
    compact(partition_log, keep=0)
    (segment,) = partition_log.segments()
    metadata = pq.read_metadata(log_state / segment.stored.name)
    assert [metadata.row_group(i).num_rows for i in range(3)] == [100_000, 100_000, 30_000]
    assert [part.num_rows for part in partition_log.read()] == [100_000, 100_000, 30_000]
    assert [part["x"].to_pylist() for part in partition_log.read(199_999, 200_000)] == [[199_999], [200_000]]


def test_4_2_a_slow_reader_gets_each_row_once(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, *[1] * 6, known_us=1)
    reading = opened(log_state).read(columns=["x"])
    parts = [next(reading)["x"].to_pylist()]
    for target_rows in (2, 4, 100):
        compact(partition_log, keep=0, target_rows=target_rows)
        sweep(log_state)
        assert objects(log_state) == listed(log_state)
        parts.append(next(reading)["x"].to_pylist())
    parts += [part["x"].to_pylist() for part in reading]
    assert [value for part in parts for value in part] == list(range(6))


def test_4_2_a_file_that_is_replaced_between_its_check_and_its_reading_is_no_error(
    partition_log: PartitionLog, log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(partition_log, 1, 1, known_us=1)
    real = FolderStorage.local_path

    def overtaken(self: FolderStorage, stored: StoredObject) -> object:
        path = real(self, stored)
        monkeypatch.setattr(FolderStorage, "local_path", real)
        compact(opened(log_state), keep=0)
        sweep(log_state)
        return path

    monkeypatch.setattr(FolderStorage, "local_path", overtaken)
    assert values(partition_log) == [0, 1]
    assert bounds(partition_log) == [(0, 1)]


def test_4_2_of_two_compactions_one_does_nothing(
    partition_log: PartitionLog, log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(partition_log, 1, 1, 1, known_us=1)
    real = Catalog.replace

    def overtaken(self: Catalog, *arguments: object, **named: object) -> None:
        monkeypatch.setattr(Catalog, "replace", real)
        assert compact(opened(log_state), keep=1).written == 1
        real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "replace", overtaken)
    assert compact(partition_log, keep=0) == CompactionReport()
    assert bounds(partition_log) == [(0, 1), (2, 2)]
    sweep(log_state)
    assert objects(log_state) == listed(log_state)
    assert values(partition_log) == [0, 1, 2]


def test_4_2_a_row_that_expires_during_a_compaction_does_not_come_back(
    log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition_log = opened(log_state, PREDICTIONS)
    fill(partition_log, 1, 1, 1, known_us=1)
    real = Catalog.replace

    def overtaken(self: Catalog, *arguments: object, **named: object) -> None:
        self.remove_before(partition_log.partition, 1, None)
        real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "replace", overtaken)
    assert compact(partition_log, keep=1) == CompactionReport()
    assert (bounds(partition_log), values(partition_log), partition_log.next_seq()) == ([], [], 3)
    sweep(log_state)
    assert objects(log_state) == set()
    fill(partition_log, 1)
    assert values(partition_log) == [3]


def test_an_altered_row_is_not_merged(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, 1, 1, 1, known_us=1)
    path = log_state / partition_log.segments()[1].stored.name
    before = partition_log.segments()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=f"{path}: is corrupt"):
        compact(partition_log, keep=0)
    assert partition_log.segments() == before
    assert objects(log_state) == listed(log_state)
