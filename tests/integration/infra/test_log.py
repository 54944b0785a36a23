"""SEMANTICS 1.4, 4.2: the accepted log stands whole or not at all, and of two writers one loses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from skewless.infra.log.accepted import REJECT, SEQ, AcceptedLog, count_rejected
from skewless.infra.log.inventory import inventory_folder

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.runs import (
    Coverage,
    Kind,
    KnownRange,
    MaterializationRun,
    RunLedger,
    known_ranges,
    last_by_partition,
    last_covered,
)
from skewless.infra.storage.database import Database
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.project_state import open_database

ROOT = Path(__file__).parents[3]
PARTITION = "batch/v-0123456789abcdef"


def rows(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64())})


def folder_of(root: Path) -> Path:
    return root / PARTITION


@pytest.fixture
def accepted_log(tmp_path: Path) -> AcceptedLog:
    return AcceptedLog(tmp_path, PARTITION)


def test_1_4_positions_are_dense_and_begin_at_zero(accepted_log: AcceptedLog, tmp_path: Path) -> None:
    assert (accepted_log.next_seq(), accepted_log.files()) == (0, [])
    assert [(part.first, part.last) for part in (accepted_log.append(rows(5, 6, 7)), accepted_log.append(rows(8)))] == [
        (0, 2),
        (3, 3),
    ]
    assert accepted_log.next_seq() == 4
    names = ["00000000000000000000.parquet", "00000000000000000003.parquet"]
    assert [Path(path).name for path in accepted_log.files()] == names
    assert pq.read_table(folder_of(tmp_path) / names[0]).to_pydict() == {"x": [5, 6, 7], SEQ: [0, 1, 2]}
    assert pq.read_table(folder_of(tmp_path) / names[1]).to_pydict() == {"x": [8], SEQ: [3]}


def test_files_from_a_position_on(accepted_log: AcceptedLog) -> None:
    for size in (3, 1, 2):
        accepted_log.append(rows(*range(size)))
    assert [len(accepted_log.files(first)) for first in (0, 2, 3, 4, 5, 6)] == [3, 3, 2, 1, 1, 0]


@pytest.mark.parametrize("notes", ["none", "old", "torn", "damaged", "empty"])
def test_4_2_the_chain_is_followed_whatever_its_notes_say(
    accepted_log: AcceptedLog, tmp_path: Path, notes: str
) -> None:
    noted = inventory_folder(tmp_path) / f"{PARTITION}.list"
    accepted_log.append(rows(1, 2))
    old = noted.read_text()
    accepted_log.append(rows(3))
    texts = {
        "old": old,
        "torn": noted.read_text()[:-9],
        "damaged": noted.read_text().replace("+ 0", "+ 1"),
        "empty": "",
    }
    if notes == "none":
        noted.unlink()
    else:
        noted.write_text(texts[notes])
    other = AcceptedLog(tmp_path, PARTITION)
    assert other.next_seq() == 3
    assert other.append(rows(4)).first == 3
    # A reader that had opened it before sees what the other wrote.
    assert accepted_log.next_seq() == 4


def test_4_2_of_two_writers_one_loses(
    accepted_log: AcceptedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted_log.append(rows(1))
    other = AcceptedLog(tmp_path, PARTITION)
    real = os.link

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real)
        other.append(rows(2, 3))
        real(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(ConflictError, match=f"log partition '{PARTITION}': was written by another process"):
        accepted_log.append(rows(9))
    assert accepted_log.append(rows(4)).first == 3
    assert [pq.read_table(path)["x"].to_pylist() for path in accepted_log.files()] == [[1], [2, 3], [4]]


RACE = """
import sys
from pathlib import Path
import pyarrow as pa
from skewless.infra.log.accepted import AcceptedLog
from skewless.contract.errors import ConflictError
log, won = AcceptedLog(Path(sys.argv[1]), sys.argv[2]), 0
sys.stdin.readline()
while won < 20:
    try:
        log.append(pa.table({"x": [int(sys.argv[3])] * (won % 3 + 1)}))
        won += 1
    except ConflictError:
        pass
"""


def test_4_2_racing_processes_leave_one_dense_chain(accepted_log: AcceptedLog, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path), PARTITION]
    writers = [subprocess.Popen([*command, str(i)], cwd=ROOT, stdin=subprocess.PIPE, text=True) for i in range(2)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    table = pa.concat_tables(pq.read_table(path) for path in accepted_log.files())
    each = sum(i % 3 + 1 for i in range(20))
    assert table[SEQ].to_pylist() == list(range(2 * each))
    assert sorted(table["x"].to_pylist()) == [0] * each + [1] * each
    assert not list(folder_of(tmp_path).glob(".*"))


KILLED = """
import os, sys
from pathlib import Path
import pyarrow as pa
from skewless.infra.log import accepted
calls, at = [0], int(sys.argv[3])
def dying(real):
    def call(*arguments):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), 9)
        return real(*arguments)
    return call
os.fsync, os.link = dying(os.fsync), dying(os.link)
accepted.AcceptedLog(Path(sys.argv[1]), sys.argv[2]).append(pa.table({"x": [2, 3]}))
"""


@pytest.mark.parametrize(("step", "stands"), [(1, False), (2, False), (3, True)])
def test_4_2_a_killed_append_stands_whole_or_not_at_all(
    accepted_log: AcceptedLog, tmp_path: Path, step: int, *, stands: bool
) -> None:
    accepted_log.append(rows(1))
    command = [sys.executable, "-c", KILLED, str(tmp_path), PARTITION, str(step)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert AcceptedLog(tmp_path, PARTITION).append(rows(9)).first == (3 if stands else 1)
    expected = [[1], [2, 3], [9]] if stands else [[1], [9]]
    assert [pq.read_table(path)["x"].to_pylist() for path in accepted_log.files()] == expected


def test_a_damaged_file_is_named(accepted_log: AcceptedLog, tmp_path: Path) -> None:
    path = accepted_log.append(rows(1, 2, 3)).path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"log file {path}: is corrupt.*restore it from a backup"):
        AcceptedLog(tmp_path, PARTITION).files()


def fill_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_log_as_it_was(
    accepted_log: AcceptedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted_log.append(rows(1))
    before = sorted(path.name for path in folder_of(tmp_path).iterdir())
    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(StoreError, match=r"cannot be written: .*No space left on device.*free disk space"):
        accepted_log.append(rows(2))
    assert sorted(path.name for path in folder_of(tmp_path).iterdir()) == before
    monkeypatch.undo()
    assert accepted_log.append(rows(2)).first == 1


def test_a_disk_that_fills_after_the_rows_are_durable_loses_nothing(
    accepted_log: AcceptedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.log.inventory.hold_lock", fill_disk)
    assert accepted_log.append(rows(1, 2)).last == 1
    monkeypatch.undo()
    assert AcceptedLog(tmp_path, PARTITION).next_seq() == 2


def test_a_folder_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(StoreError, match=r"log .*Not a directory"):
        AcceptedLog(tmp_path / "log", PARTITION).append(rows(1))


def test_rows_in_quarantine_are_counted(accepted_log: AcceptedLog) -> None:
    accepted_log.append(pa.table({REJECT: pa.array(["bad", None, "worse"], pa.string())}))
    accepted_log.append(pa.table({REJECT: pa.array([None, None], pa.string())}))
    assert count_rejected(accepted_log.files()) == 2


def test_2_6_a_run_begins_once_and_ends_once(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    assert ledger.runs() == []
    first, second = ledger.start(10), RunLedger(project_database).start(11)
    assert (first.run_id, second.run_id) == (1, 2)
    assert ledger.runs() == [first, second]
    covers = {PARTITION: Coverage(first=0, last=4, kind="live")}
    ledger.finish(second, covers, 20)
    # A later record for the same positions changes nothing.
    RunLedger(project_database).finish(second, {}, 99)
    for reader in (ledger, RunLedger(project_database)):
        assert reader.runs() == [first, MaterializationRun(run_id=2, started_us=11, ended_us=20, covers=covers)]


def test_2_6_racing_starts_get_ids_of_their_own(project_database: Database) -> None:
    def start(now_us: int) -> int:
        try:
            return RunLedger(project_database).start(now_us).run_id
        finally:
            project_database.close()

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(start, range(12)))
    assert sorted(ids) == list(range(1, 13))
    assert [run.run_id for run in RunLedger(project_database).runs()] == sorted(ids)


def test_2_6_a_run_that_failed_early_leaves_its_id(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    ended = ledger.finish(ledger.start(1), {}, 2)
    second = ledger.start(3)
    assert ledger.runs() == [ended, second]
    ledger.withdraw(second)
    ledger.withdraw(ended)  # it has ended, so it stays
    assert ledger.runs() == [ended]
    again = ledger.finish(ledger.start(5), {}, 6)
    assert again.run_id == second.run_id
    assert ledger.runs() == [ended, again]


def test_2_6_a_run_that_lost_its_lease_records_nothing(project_database: Database) -> None:
    leases, ledger = Leases(project_database, ttl_s=0.05), RunLedger(project_database)
    lost = leases.acquire("materialize", holder="elsewhere-1")
    run = ledger.start(1, lease=lost)
    time.sleep(0.1)
    held = leases.acquire("materialize", holder="elsewhere-2")
    later = ledger.start(2, lease=held)
    writes: list[Callable[[], object]] = [
        lambda: ledger.start(3, lease=lost),
        lambda: ledger.finish(run, {PARTITION: Coverage(first=0, last=4, kind="live")}, 3, lost),
        lambda: ledger.withdraw(run, lost),
    ]
    for write in writes:
        with pytest.raises(ConflictError, match="lease 'materialize' with token 1: was lost to elsewhere-2"):
            write()
    assert ledger.runs() == [run, later]
    assert ledger.finish(later, {}, 4, held) == ledger.runs()[-1]


def test_2_6_many_runs_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.log.runs._BATCH_RUNS", 3)
    database = open_database(f"sqlite:///{tmp_path / 'skewless.db'}")
    ledger, follower = RunLedger(database), RunLedger(database)
    for n in range(8):
        run = ledger.start(n)
        if n % 2:
            ledger.finish(run, {f"p{n}": Coverage(first=0, last=n, kind="live")}, n)
        assert follower.runs() == RunLedger(database).runs()
    assert last_by_partition(follower.runs()) == {"p1": 1, "p3": 3, "p5": 5, "p7": 7}
    assert [each.run_id for each in ledger.read_from(6)] == [6, 7, 8]


def run(run_id: int, ended: int | None, first: int = 0, last: int = -1, kind: Kind = "live") -> MaterializationRun:
    covers = {} if ended is None else {PARTITION: Coverage(first=first, last=last, kind=kind)}
    return MaterializationRun(run_id=run_id, started_us=0, ended_us=ended, covers=covers)


Expected = list[tuple[int, int, Kind, int]]


@pytest.mark.parametrize(
    ("runs", "ranges"),
    [
        ([], []),
        ([run(1, None)], []),
        ([run(1, 5, 0, 3, "bootstrap"), run(2, 9, 4, 6)], [(0, 3, "bootstrap", 5), (4, 6, "live", 9)]),
        # A run that covered rows again, as after a lost Redis, moves nothing.
        ([run(1, 5, 0, 3), run(2, 9, 0, 6)], [(0, 3, "live", 5), (4, 6, "live", 9)]),
        ([run(1, 5, 0, 3), run(2, 9, 0, 3)], [(0, 3, "live", 5)]),
        ([run(1, 5, 0, 3), run(2, None), run(3, 9, 4, 6)], [(0, 3, "live", 5), (4, 6, "live", 9)]),
        # Nothing to cover on the first run.
        ([run(1, 5, 0, -1, "bootstrap"), run(2, 9, 0, 1)], [(0, 1, "live", 9)]),
        # A clock that was set back between two runs loses no row.
        ([run(1, 9, 0, 3), run(2, 5, 4, 6)], [(0, 3, "live", 9), (4, 6, "live", 5)]),
    ],
)
def test_2_6_each_position_belongs_to_the_first_run_that_ended_with_it(
    runs: list[MaterializationRun], ranges: Expected
) -> None:
    expected = [KnownRange(first=first, last=last, kind=kind, ended_us=ended) for first, last, kind, ended in ranges]
    for order in (runs, runs[::-1]):
        assert known_ranges(order, PARTITION) == expected
    assert known_ranges(runs, "batch/other") == []
    assert last_covered(runs, PARTITION) == max((one.last for one in expected), default=-1)


def test_the_covered_positions_are_plain_json(project_database: Database) -> None:
    ledger = RunLedger(project_database)
    ledger.finish(ledger.start(1), {"p": Coverage(first=0, last=1, kind="live")}, 2)
    ((*numbers, covers),) = project_database.query("SELECT * FROM materializations")
    assert numbers == [1, 1, 0, 2]
    assert json.loads(covers) == {"p": {"first": 0, "last": 1, "kind": "live"}}
