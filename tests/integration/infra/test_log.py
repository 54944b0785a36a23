"""SEMANTICS 1.4, 4.2: the accepted log stands whole or not at all, and of two writers one loses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from skewless.infra.log.accepted import REJECT, SEQ, AcceptedLog, count_rejected
from skewless.infra.log.inventory import inventory_folder

from skewless.contract.errors import ConflictError, StoreError

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
