"""SEMANTICS 1.4, 2.6, 4.2: the log of a partition has dense positions, and of two writers one loses."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pytest

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, REJECT, SEQ, count_rejected
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import GROUP_ROWS
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from tests.integration.infra.partition_logs import (
    PARTITION,
    bounds,
    fill,
    fill_disk,
    listed,
    objects,
    opened,
    read,
    rows,
    sweep,
    values,
)


def test_1_4_positions_are_dense_and_begin_at_zero(partition_log: PartitionLog, log_state: ProjectState) -> None:
    assert (partition_log.next_seq(), partition_log.files(), read(partition_log)) == (0, [], [])
    segments = [partition_log.append(rows(5, 6, 7)), partition_log.append(rows(8))]
    assert [(segment.first, segment.last, segment.rows) for segment in segments] == [(0, 2, 3), (3, 3, 1)]
    assert (partition_log.next_seq(), bounds(partition_log)) == (4, [(0, 2), (3, 3)])
    assert read(partition_log, 2) == [{"x": 7, SEQ: 2}, {"x": 8, SEQ: 3}]
    assert objects(log_state) == listed(log_state) == {segment.stored.name for segment in segments}
    with pytest.raises(ValueError, match="at least one row"):
        partition_log.append(rows())


@pytest.mark.parametrize("is_compacted", [False, True])
def test_files_and_rows_of_a_range(partition_log: PartitionLog, *, is_compacted: bool) -> None:
    fill(partition_log, 3, 1, 2, 2, known_us=1)
    if is_compacted:
        compact(partition_log, keep=1, target_rows=4)
    expected = [(0, 3), (4, 5), (6, 7)] if is_compacted else [(0, 2), (3, 3), (4, 5), (6, 7)]
    assert bounds(partition_log) == expected
    for first in range(9):
        assert len(partition_log.files(first)) == sum(last >= first for _, last in expected)
        for last in range(first, 10):
            hit = [bound for bound in expected if bound[0] <= last and bound[1] >= first]
            assert bounds(partition_log, first, last) == hit
            assert [row[SEQ] for row in read(partition_log, first, last)] == list(range(first, min(last, 7) + 1))


def test_4_2_of_two_writers_one_loses_for_good(partition_log: PartitionLog, log_state: ProjectState) -> None:
    partition_log.append(rows(1))
    opened(log_state).append(rows(2, 3))
    for _ in range(2):
        with pytest.raises(ConflictError, match=f"log partition '{PARTITION}': was written by another process"):
            partition_log.append(rows(9))
    assert partition_log.next_seq() == 3
    assert opened(log_state).append(rows(4)).first == 3
    assert values(partition_log) == [1, 2, 3, 4]
    assert objects(log_state) == listed(log_state)


def test_4_2_a_writer_may_say_where_it_takes_the_end_to_be(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    end = partition_log.next_seq()
    opened(log_state).append(rows(1))
    for at in (end, None):
        with pytest.raises(ConflictError):
            partition_log.append(rows(2), at=at)
    checked = opened(log_state)
    checked.check_end(1)
    with pytest.raises(ConflictError):
        checked.check_end(0)
    with pytest.raises(ConflictError):
        checked.append(rows(2), at=1)
    late = opened(log_state)
    assert late.append(rows(2), at=1).first == 1
    assert values(late) == [1, 2]


def test_4_2_of_16_racing_threads_one_wins_each_position(log_state: ProjectState) -> None:
    barrier, writers = threading.Barrier(16), 16

    def append(writer: int) -> bool:
        log = opened(log_state)
        end = log.next_seq()
        barrier.wait()
        try:
            log.append(rows(writer), at=end)
        except ConflictError:
            with pytest.raises(ConflictError):
                log.append(rows(writer))
            return False
        finally:
            log_state.database.close()
        return True

    with ThreadPoolExecutor(writers) as pool:
        for n in range(1, 4):
            assert sum(pool.map(append, range(writers))) == 1
            assert opened(log_state).next_seq() == n
    assert objects(log_state) == listed(log_state)


def test_4_2_rows_may_be_staged_in_batches(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, 2)
    with partition_log.stage_rows() as staged:
        staged.write(rows(*range(2, 5)))
        staged.write(rows(*range(5, GROUP_ROWS + 9)))
        assert partition_log.next_seq() == 2
        segment = partition_log.commit_rows(staged)
    assert (segment.first, segment.last) == (2, GROUP_ROWS + 8)
    assert values(partition_log) == list(range(GROUP_ROWS + 9))
    assert objects(log_state) == listed(log_state)
    with partition_log.stage_rows() as staged:
        staged.write(rows(1))
    with partition_log.stage_rows() as staged:
        staged.write(rows(1))
        opened(log_state).append(rows(0))
        with pytest.raises(ConflictError):
            partition_log.commit_rows(staged)
    assert partition_log.next_seq() == GROUP_ROWS + 10
    assert objects(log_state) == listed(log_state)


def test_4_2_a_check_that_fails_rolls_the_append_back(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, 1)
    leases = Leases(log_state.database)
    lease = leases.acquire("import s", holder="elsewhere-1")
    assert lease is not None
    assert partition_log.append(rows(1), check=lambda: leases.check(lease)).first == 1
    leases.release(lease)
    leases.acquire("import s", holder="elsewhere-2")
    for _ in range(2):
        with pytest.raises(ConflictError, match="was lost to elsewhere-2"):
            partition_log.append(rows(2), check=lambda: leases.check(lease))
    other = opened(log_state)
    with other.stage_rows() as staged:
        staged.write(rows(2))
        with pytest.raises(ConflictError, match="was lost to elsewhere-2"):
            other.commit_rows(staged, check=lambda: leases.check(lease))
    assert values(opened(log_state)) == [0, 1]
    assert objects(log_state) == listed(log_state)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(log_state).append(rows(2), check=stop)
    assert partition_log.append(rows(2)).first == 2  # the writer has not lost the log


def test_4_2_after_a_restore_to_an_older_state_no_append_leaves_a_gap(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    fill(partition_log, 1, 1)
    for sql in ("UPDATE log_partitions SET next_seq = 1", "DELETE FROM segments WHERE first_seq >= 1"):
        log_state.database.execute(sql)
    reopened = opened(log_state)
    with pytest.raises(ConflictError):
        reopened.check_end(2)
    for log in (partition_log, opened(log_state), reopened):
        for _ in range(2):
            with pytest.raises(ConflictError):
                log.append(rows(9), at=2)
    fill(opened(log_state), 1)
    assert values(partition_log) == [0, 1]
    # Also if the database has lost the partition.
    lost = opened(log_state)
    lost.next_seq()
    lost.append(rows(2))
    for table in ("log_partitions", "segments"):
        log_state.database.execute(f"DELETE FROM {table}")
    with pytest.raises(ConflictError):
        lost.append(rows(9))
    assert (lost.next_seq(), opened(log_state).append(rows(0)).first) == (0, 0)


def test_a_full_disk_leaves_the_log_as_it_was(
    partition_log: PartitionLog, log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(partition_log, 1, 1, known_us=1)
    before = objects(log_state)
    for name in ("fsync", "link"):
        monkeypatch.setattr(os, name, fill_disk)
        with pytest.raises(StoreError, match=r"cannot be written .*No space left on device.*make room"):
            compact(partition_log, keep=0)
        if name == "fsync":
            with pytest.raises(StoreError, match=r"cannot be written .*No space left on device.*make room"):
                partition_log.append(rows(2))
        with partition_log.stage_rows() as staged:
            staged.write(rows(2))
            with pytest.raises(StoreError, match="cannot be written"):
                partition_log.commit_rows(staged)
        monkeypatch.undo()
        sweep(log_state)
        assert objects(log_state) == before
    fill(partition_log, 1)
    assert values(partition_log) == [0, 1, 2]


def test_a_folder_that_is_a_file_is_a_store_error(log_state: ProjectState) -> None:
    for name in ("log", "staging"):
        (log_state / name).write_text("")
    log = opened(log_state)
    with pytest.raises(StoreError, match="Not a directory"):
        log.append(rows(1))
    with pytest.raises(StoreError, match="Not a directory"), log.stage_rows():
        pass


def test_damaged_and_missing_files_are_named(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, 3, 3, 3, known_us=1)
    compact(partition_log, keep=1)
    merged, batch = (log_state / segment.stored.name for segment in partition_log.segments())
    data = batch.read_bytes()
    for damaged in (data[:-20], data[:-1] + b"x", b""):
        batch.write_bytes(damaged)
        for use in (partition_log.files, lambda: read(partition_log, 6)):
            with pytest.raises(StoreError, match=f"log file {batch}: is corrupt.*restore it from a backup"):
                use()
    assert len(read(partition_log, 0, 5)) == 6
    batch.write_bytes(data)
    assert len(read(partition_log)) == 9
    merged.unlink()
    for use in (partition_log.files, lambda: read(partition_log)):
        with pytest.raises(StoreError, match=f"log file {merged}: is missing.*restore it from a backup"):
            use()


def evolve(log: PartitionLog) -> Iterator[dict[str, object]]:
    for batch in (
        pa.table({"x": pa.array([1, 2]), REJECT: pa.array([None, None], pa.null())}),
        pa.table({"x": pa.array([3]), REJECT: pa.array(["bad"]), "y": pa.array([0.5])}),
        pa.table({"y": pa.array([1.5]), "z": pa.array(["s"])}),
    ):
        segment = log.append(batch)
        log.record_end(segment.first, segment.last, 1)
        yield from batch.to_pylist()


def test_files_with_other_columns_are_read_as_one(partition_log: PartitionLog, log_state: ProjectState) -> None:
    expected_rows = list(evolve(partition_log))
    columns = ["x", REJECT, SEQ, "y", "z"]
    expected = [{name: row.get(name) for name in columns} | {SEQ: seq} for seq, row in enumerate(expected_rows)]
    for keep in (3, 2, 1, 0):
        compact(partition_log, keep=keep, target_rows=3)
        for log in (partition_log, opened(log_state)):
            assert read(log) == expected
            assert {part.schema for part in log.read()} == {next(log.read()).schema}
            assert read(log, 2, columns=["z", "no"]) == [{"z": row["z"], "no": None} for row in expected[2:]]
        query = "SELECT x, __reject, __seq, y, z FROM read_parquet(?, union_by_name=true) ORDER BY __seq"
        with duckdb.connect() as connection:
            assert connection.execute(query, [partition_log.files()]).fetchall() == [
                tuple(row.values()) for row in expected
            ]


def test_rows_in_quarantine_are_counted(partition_log: PartitionLog) -> None:
    partition_log.append(pa.table({REJECT: pa.array(["bad", None, "worse"], pa.string())}))
    partition_log.append(pa.table({REJECT: pa.array([None, None], pa.string())}))
    assert count_rejected(partition_log.files()) == 2


def test_a_writer_adds_its_columns_to_those_of_other_writers(
    partition_log: PartitionLog, log_state: ProjectState
) -> None:
    fill(partition_log, 1)
    opened(log_state).append(pa.table({"y": [1.0]}))
    with partition_log.stage_rows() as staged:
        staged.write(pa.table({"z": [True]}))
        partition_log.commit_rows(staged)
    assert partition_log.schema().names == ["x", SEQ, "y", "z"]
    assert read(partition_log, columns=["x", "y", "z"]) == [
        {"x": 0, "y": None, "z": None},
        {"x": None, "y": 1.0, "z": None},
        {"x": None, "y": None, "z": True},
    ]


def test_a_column_keeps_its_type(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, 1, 1, known_us=1)
    for log in (partition_log, opened(log_state)):
        with pytest.raises(StoreError, match=r"cannot take a column of another type.*new name"):
            log.append(pa.table({"x": ["text"]}))
        compact(partition_log, keep=0)
    assert opened(log_state).append(rows(2)).first == 2


def test_2_6_a_row_is_known_when_its_first_apply_ended(partition_log: PartitionLog, log_state: ProjectState) -> None:
    fill(partition_log, 2, 2, 2, 2)
    assert partition_log.read_ends().num_rows == 0
    for first, last, ended in ((0, 1, 10), (4, 5, 30), (2, 5, 40), (0, 6, 50)):
        partition_log.record_end(first, last, ended)
    ends = [(0, 1, 10), (2, 3, 40), (4, 5, 30)]
    assert [tuple(row.values()) for row in partition_log.read_ends().to_pylist()] == ends
    expected = [10, 10, 40, 40, 30, 30, None, None]
    for _ in range(2):
        log = opened(log_state)
        assert read(log, columns=[KNOWN_AT, "x"]) == [{KNOWN_AT: at, "x": i} for i, at in enumerate(expected)]
        assert not log.has_all_ends()
        assert log.catalog.last_applied([PARTITION]) == {PARTITION: 5}
        compact(partition_log, keep=0, target_rows=4)
    # The times of merged rows are in their file.
    assert opened(log_state).read_ends()["ended_us"].to_pylist() == [30]
    partition_log.record_end(0, 7, 60)
    assert partition_log.has_all_ends()
    compact(partition_log, keep=0, target_rows=100)
    assert opened(log_state).read_ends().num_rows == 0
    assert [row[KNOWN_AT] for row in read(partition_log, columns=[KNOWN_AT])] == [*expected[:6], 60, 60]
    with pytest.raises(ValueError, match="not a range"):
        partition_log.record_end(3, 2, 1)


def test_while_the_database_is_down_appends_store_one_object(
    partition_log: PartitionLog, log_state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **_named: object) -> None:
        raise StoreError("database", "is down", fix="start it")

    fill(partition_log, 1)
    monkeypatch.setattr(Database, "transaction", refuse)
    with pytest.raises(StoreError, match="is down"):
        partition_log.append(rows(1))
    monkeypatch.setattr(Database, "query", refuse)
    for _ in range(3):
        with pytest.raises(StoreError, match="is down"):
            partition_log.append(rows(1))
    monkeypatch.undo()
    assert len(objects(log_state)) == 2
    partition_log.append(rows(1))
    assert values(partition_log) == [0, 1]
