"""Segments are rewritten with fewer rows or none, whatever other processes do to the log meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from skewless.contract.errors import ConflictError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact, rewrite_segments
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.project_state import ProjectState


@pytest.fixture
def number_log(project_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PartitionLog:
    """A log of 0 to 11 in segments of three, in each kind of database."""
    state = ProjectState(tmp_path)
    monkeypatch.setattr(ProjectState, "database", property(lambda _: project_database))
    log = PartitionLog(state, "numbers")
    for first in range(0, 12, 3):
        log.append(pa.table({"x": pa.array(range(first, first + 3), pa.int64())}))
    return log


def without(*numbers: int) -> pc.Expression:
    return ~pc.field("x").isin(list(numbers))


def read(log: PartitionLog) -> list[int]:
    return [row for rows in log.read() for row in rows["x"].to_pylist()]


def test_fewer_rows_leave_a_hole_and_no_rows_remove_the_segment(number_log: PartitionLog) -> None:
    before = number_log.segments()
    replaced = rewrite_segments(number_log, lambda _: True, lambda rows: rows.filter(without(1, 6, 7, 8)))
    assert replaced == [segment.stored for segment in before]
    after = number_log.segments()
    assert [(item.first, item.last) for item in after] == [(0, 1), (3, 5), (9, 11)]
    assert number_log.next_seq() == 12
    assert [row for item in after for row in read_segment(number_log, item.first)] == [0, 2, 3, 4, 5, 9, 10, 11]
    number_log.append(pa.table({"x": pa.array([12], pa.int64())}))
    assert number_log.segments()[-1].first == 12
    # Neighbours without a hole are merged as before.
    assert compact(number_log, keep=0, group=lambda _: "").merged == 2
    assert number_log.catalog.delete_unread(number_log.storage) == 6


def read_segment(log: PartitionLog, first: int) -> list[int]:
    (segment,) = log.segments(first, first)
    (file,) = log.local_files([segment])
    return pa.parquet.read_table(file)["x"].to_pylist()  # type: ignore[no-any-return]


def test_a_segment_that_is_merged_meanwhile_is_rewritten_after_the_merge(
    number_log: PartitionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real = PartitionLog(ProjectState(Path("/nowhere")), "numbers"), Catalog.replace
    merged: list[bool] = []
    other.storage = number_log.storage

    def replace(catalog: Catalog, *arguments: object, **options: object) -> None:
        if not merged:
            merged.append(True)
            compact(other, keep=0, group=lambda _: "")
        real(catalog, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Catalog, "replace", replace)
    rewrite_segments(number_log, lambda path: 4 in read_path(path), lambda rows: rows.filter(without(4)))
    assert [(item.first, item.last, item.is_merged) for item in number_log.segments()] == [(0, 10, True)]
    assert read_segment(number_log, 0) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def read_path(path: Path) -> list[int]:
    return pa.parquet.read_table(path)["x"].to_pylist()  # type: ignore[no-any-return]


def test_an_end_that_is_recorded_meanwhile_stays(number_log: PartitionLog) -> None:
    def change(rows: pa.Table) -> pa.Table:
        if rows["x"][0].as_py() == 3:
            number_log.record_end(0, 5, 77)
        return rows

    rewrite_segments(number_log, lambda _: True, change)
    assert [item.known_us for item in number_log.segments()] == [77, 77, None, None]


def test_a_replaced_segment_cannot_be_removed_again(number_log: PartitionLog) -> None:
    (first, *_), catalog = number_log.segments(), number_log.catalog
    catalog.replace("numbers", [first], None, began_at=time.time())
    assert [item.first for item in number_log.segments()] == [3, 6, 9]
    assert catalog.list_removed() == {first.stored.name}
    assert first.stored.digest not in catalog.list_digests()
    with pytest.raises(ConflictError, match="changed by another process"):
        catalog.replace("numbers", [first], None, began_at=time.time())
