"""SEMANTICS 1.4, 4.2: the log of a stream partition stands whole or not at all, and of two writers one loses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from skewless.infra.log.accepted import REJECT, SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.log.event_log import EventLog

from skewless.contract.errors import ConflictError, StoreError
from tests.integration.infra.event_logs import (
    PARTITION,
    bounds,
    fill,
    fill_disk,
    folder_of,
    names,
    opened,
    read,
    rows,
    values,
)
from tests.worlds.clock import SecondsClock

ROOT = Path(__file__).parents[3]


def test_1_4_positions_are_dense_and_begin_at_zero(event_log: EventLog, tmp_path: Path) -> None:
    assert (event_log.next_seq(), event_log.files(), read(event_log)) == (0, [], [])
    assert [(span.first, span.last) for span in (event_log.append(rows(5, 6, 7)), event_log.append(rows(8)))] == [
        (0, 2),
        (3, 3),
    ]
    assert (event_log.next_seq(), bounds(event_log)) == (4, [(0, 2), (3, 3)])
    assert read(event_log, 2) == [{"x": 7, SEQ: 2}, {"x": 8, SEQ: 3}]
    assert names(tmp_path) == ["00000000000000000000.parquet", "00000000000000000003.parquet"]
    with pytest.raises(ValueError, match="at least one row"):
        event_log.append(rows())


@pytest.mark.parametrize("is_compacted", [False, True])
def test_files_and_rows_of_a_range(event_log: EventLog, *, is_compacted: bool) -> None:
    fill(event_log, 3, 1, 2, 2)
    if is_compacted:
        event_log.compact(keep=1, target_rows=4)
    expected = [(0, 3), (4, 5), (6, 7)] if is_compacted else [(0, 2), (3, 3), (4, 5), (6, 7)]
    assert bounds(event_log) == expected
    for first in range(9):
        for last in range(first, 10):
            hit = [span for span in expected if span[0] <= last and span[1] >= first]
            assert bounds(event_log, first, last) == hit
            assert [row[SEQ] for row in read(event_log, first, last)] == list(range(first, min(last, 7) + 1))


def test_4_2_of_two_writers_one_loses_for_good(event_log: EventLog, tmp_path: Path, clock: SecondsClock) -> None:
    event_log.append(rows(1))
    other = opened(tmp_path, clock)
    other.append(rows(2, 3))
    for _ in range(2):
        with pytest.raises(ConflictError, match=f"log partition '{PARTITION}': was written by another process"):
            event_log.append(rows(9))
    assert event_log.next_seq() == 3
    assert opened(tmp_path, clock).append(rows(4)).first == 3
    assert values(event_log) == [1, 2, 3, 4]


def test_4_2_a_writer_may_say_where_it_takes_the_end_to_be(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock
) -> None:
    tail = event_log.next_seq()
    opened(tmp_path, clock).append(rows(1))
    with pytest.raises(ConflictError):
        event_log.append(rows(2), at=tail)
    with pytest.raises(ConflictError):
        event_log.append(rows(2))
    late = opened(tmp_path, clock)
    with pytest.raises(ValueError, match="gap"):
        late.append(rows(2), at=2)
    assert late.append(rows(2), at=1).first == 1
    assert values(late) == [1, 2]


def test_4_2_a_writer_whose_file_was_compacted_and_removed_is_fenced(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock
) -> None:
    event_log.append(rows(0))
    other = opened(tmp_path, clock)
    fill(other, 1, 1, 1)
    other.compact(keep=1)
    clock.now += 601
    other.sweep()
    assert names(tmp_path, "0*") == ["00000000000000000003.parquet"]
    with pytest.raises(ConflictError):
        event_log.append(rows(9, 9, 9, 9, 9))
    assert names(tmp_path, "0*") == ["00000000000000000003.parquet"]
    assert values(event_log) == values(other) == [0, 1, 2, 3]


def test_4_2_what_a_fenced_writer_left_when_it_was_killed_is_no_part_of_the_log(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock
) -> None:
    reader = opened(tmp_path, clock)
    fill(event_log, 2, 2, 2, 2)
    assert values(reader) == list(range(8))
    event_log.compact(keep=1)
    clock.now += 601
    event_log.sweep()
    pq.write_table(pa.table({"x": [9] * 9, SEQ: range(2, 11)}), folder_of(tmp_path) / f"{2:020d}.parquet")
    for one in (reader, event_log, opened(tmp_path, clock)):
        assert values(one) == list(range(8))
    event_log.sweep()
    assert names(tmp_path, "0*") == [f"{6:020d}.parquet"]


RACE = """
import sys
from pathlib import Path
import pyarrow as pa
from skewless.infra.log.event_log import EventLog
from skewless.contract.errors import ConflictError
won = 0
sys.stdin.readline()
while won < 20:
    log = EventLog(Path(sys.argv[1]), sys.argv[2], grace_s=0)
    try:
        while won < 20:
            first = log.append(pa.table({"x": [int(sys.argv[3])] * (won % 3 + 1)}))
            won += 1
            log.record_end(first.first, first.last, 1_000 + first.last)
            if won % 5 == 0:
                log.compact(keep=2, target_rows=20)
    except ConflictError:
        pass
"""


def test_4_2_racing_writers_and_compactors_leave_one_dense_log(event_log: EventLog, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path), PARTITION]
    writers = [subprocess.Popen([*command, str(i)], cwd=ROOT, stdin=subprocess.PIPE, text=True) for i in range(2)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    each = sum(i % 3 + 1 for i in range(20))
    found = read(event_log, columns=[SEQ, "x", KNOWN_AT])
    assert [row[SEQ] for row in found] == list(range(2 * each))
    assert sorted(row["x"] for row in found) == [0] * each + [1] * each
    assert all(1_000 <= row[KNOWN_AT] - row[SEQ] <= 1_002 for row in found)
    assert not list(folder_of(tmp_path).glob(".*.tmp"))


KILLED = """
import os, sys
from pathlib import Path
import pyarrow as pa
from skewless.infra.log.event_log import EventLog
calls, at = [0], int(sys.argv[3])
def dying(real):
    def call(*arguments, **named):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), 9)
        return real(*arguments, **named)
    return call
os.fsync, os.link, os.replace = dying(os.fsync), dying(os.link), dying(os.replace)
log = EventLog(Path(sys.argv[1]), sys.argv[2])
if sys.argv[4] == "append":
    log.append(pa.table({"x": [4, 5]}))
else:
    log.compact(keep=1, target_rows=2)
"""


@pytest.mark.parametrize(("step", "stands"), [(1, False), (2, False), (3, True)])
def test_4_2_a_killed_append_stands_whole_or_not_at_all(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, step: int, *, stands: bool
) -> None:
    fill(event_log, 4)
    command = [sys.executable, "-c", KILLED, str(tmp_path), PARTITION, str(step), "append"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    fill(opened(tmp_path, clock), 2)
    assert values(event_log) == list(range(8 if stands else 6))
    event_log.sweep()
    assert not list(folder_of(tmp_path).glob(".*.tmp"))


@pytest.mark.parametrize("step", [1, 2, 4, 5, 9, 15])
def test_4_2_a_killed_compaction_changes_no_row(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, step: int
) -> None:
    fill(event_log, 1, 1, 1, 1, 1)
    event_log.record_end(0, 2, 7)
    expected = [(i, 7 if i <= 2 else None) for i in range(5)]
    command = [sys.executable, "-c", KILLED, str(tmp_path), PARTITION, str(step), "compact"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    for one in (event_log, opened(tmp_path, clock)):
        assert [(row["x"], row[KNOWN_AT]) for row in read(one, columns=["x", KNOWN_AT])] == expected
        one.compact(keep=1, target_rows=2)
        one.sweep()
    assert bounds(event_log) == [(0, 1), (2, 3), (4, 4)]
    assert not list(folder_of(tmp_path).glob(".*.tmp"))


def test_a_full_disk_leaves_the_log_as_it_was(
    event_log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(event_log, 1, 1)
    before = names(tmp_path, "*.parquet")
    monkeypatch.setattr(os, "fsync", fill_disk)
    for work in (lambda: event_log.append(rows(2)), lambda: event_log.compact(keep=0), event_log.sweep):
        with pytest.raises(StoreError, match=r"cannot be written .*No space left on device.*make room"):
            work()
    assert names(tmp_path, "*.parquet") == before
    assert not list(folder_of(tmp_path).glob(".*.tmp"))
    monkeypatch.undo()
    fill(event_log, 1)
    assert values(event_log) == [0, 1, 2]


def test_an_append_that_the_disk_failed_at_its_last_step_stands_and_is_not_repeated(
    event_log: EventLog, tmp_path: Path, clock: SecondsClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(event_log, 1)
    monkeypatch.setattr("skewless.infra.log.event_log.sync_folder", fill_disk)
    with pytest.raises(StoreError, match="cannot be written"):
        event_log.append(rows(1))
    monkeypatch.undo()
    with pytest.raises(ConflictError):
        event_log.append(rows(1))
    fill(opened(tmp_path, clock), 1)
    assert values(event_log) == [0, 1, 2]


def test_a_folder_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    event_log = EventLog(tmp_path / "log", PARTITION)
    for work in (
        lambda: event_log.append(rows(1)),
        event_log.compact,
        event_log.sweep,
        lambda: event_log.record_end(0, 1, 2),
    ):
        with pytest.raises(StoreError, match="Not a directory"):
            work()


def test_damaged_and_missing_files_are_named(event_log: EventLog, tmp_path: Path, clock: SecondsClock) -> None:
    fill(event_log, 3, 3, 3)
    event_log.compact(keep=1)
    [merged, batch] = event_log.spans()
    batch.path.write_bytes(batch.path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"log file {batch.path}: is corrupt.*restore it from a backup"):
        opened(tmp_path, clock).files()
    batch.path.unlink()
    reading = event_log.read()
    merged.path.unlink()
    with pytest.raises(StoreError, match=f"log file {merged.path}: is missing.*restore it from a backup"):
        next(reading)


def evolving(event_log: EventLog) -> Iterator[dict[str, object]]:
    for batch in (
        pa.table({"x": pa.array([1, 2]), REJECT: pa.array([None, None], pa.null())}),
        pa.table({"x": pa.array([3]), REJECT: pa.array(["bad"]), "y": pa.array([0.5])}),
        pa.table({"y": pa.array([1.5]), "z": pa.array(["s"])}),
    ):
        event_log.append(batch)
        yield from batch.to_pylist()


def test_files_with_other_columns_are_read_as_one(event_log: EventLog, tmp_path: Path, clock: SecondsClock) -> None:
    found = list(evolving(event_log))
    names_of = ["x", REJECT, SEQ, "y", "z"]
    expected = [{name: seq if name == SEQ else row.get(name) for name in names_of} for seq, row in enumerate(found)]
    for keep in (3, 2, 1, 0):
        event_log.compact(keep=keep, target_rows=3)
        for one in (event_log, opened(tmp_path, clock)):
            assert read(one) == expected
            assert {part.schema for part in one.read()} == {next(one.read()).schema}
            assert read(one, 2, columns=["z", "no"]) == [{"z": row["z"], "no": None} for row in expected[2:]]
        query = "SELECT x, __reject, __seq, y, z FROM read_parquet(?, union_by_name=true) ORDER BY __seq"
        with duckdb.connect() as connection:
            assert connection.execute(query, [event_log.files()]).fetchall() == [
                tuple(row.values()) for row in expected
            ]


def test_a_column_keeps_its_type(event_log: EventLog, tmp_path: Path, clock: SecondsClock) -> None:
    fill(event_log, 1, 1)
    for one in (event_log, opened(tmp_path, clock)):
        with pytest.raises(StoreError, match=r"cannot take a column of another type.*new name"):
            one.append(pa.table({"x": ["text"]}))
        event_log.compact(keep=0)
    assert opened(tmp_path, clock).append(rows(2)).first == 2
