"""``skewless recover``: killed at each step, with conflicting objects, next to writers, and in a cloud."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from skewless.contract.errors import ConflictError
from skewless.contract.feedback import Outcome
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import INGEST, RUN
from skewless.infra.log.orphans import read_orphan
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.recovery import PartitionRecovery
from skewless.infra.log.runs import RunLedger
from skewless.infra.platform.storage.project_state import DATABASE_FILE, ProjectState
from skewless.infra.records.outcomes.log import OUTCOMES, OutcomeWriter, outcome_spool
from skewless.operations.state.recovery import recover_logs
from tests.integration.infra.log_victims import LogVictims, log_victims
from tests.integration.infra.partition_logs import PARTITION, bounds, fill, objects, opened, rows, values
from tests.worlds.addresses import ProjectAddresses, all_tables, replace_tables


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def recoveries() -> Iterator[LogVictims]:
    """Processes that die at a chosen step of a recovery."""
    with log_victims() as running:
        yield running


class OlderState:
    """A state whose database can go back."""

    def __init__(self, state: ProjectState) -> None:
        self.state = state
        self._copy = state.folder.parent / "copy.db"
        self._tables: dict[str, list[Any]] = {}

    def save(self) -> None:
        if self.state.database_url is not None:
            self._tables = all_tables(self.state)
            return
        self.state.database.close()
        self.state.database.execute("SELECT 1")
        self.state.database.close()
        shutil.copyfile(self.state / DATABASE_FILE, self._copy)

    def fail_over(self) -> None:
        if self.state.database_url is not None:
            replace_tables(self.state, self._tables)
            return
        self.state.database.close()
        for suffix in ("-wal", "-shm"):
            (self.state / f"{DATABASE_FILE}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(self._copy, self.state / DATABASE_FILE)


@pytest.fixture
def reverted(tmp_path: Path) -> OlderState:
    """A state with four rows of events."""
    state = ProjectState(tmp_path / "state")
    fill(opened(state), 2, 2, known_us=7)
    return OlderState(state)


def give(state: ProjectState, writer: OutcomeWriter, label: float) -> None:
    writer.append([Outcome(prediction_id="p", label=label, known_at=1)], received_at=int(label), source="http")
    outcome_spool(state).ship()


def labels(state: ProjectState) -> list[float]:
    read = PartitionLog(state, OUTCOMES).read(columns=["label"])
    return sorted(label for part in read for label in part["label"].to_pylist())


def lose_much(reverted: OlderState) -> None:
    """Append, merge, ship and delete after the copy."""
    state = reverted.state
    writer = OutcomeWriter(outcome_spool(state), on_stored=lambda: None)
    give(state, writer, 0)
    give(state, writer, 1)
    reverted.save()
    fill(opened(state), 1, 2, known_us=9)
    compact(opened(state), keep=0, target_rows=7)
    compact(PartitionLog(state, OUTCOMES), keep=0, group=lambda _: OUTCOMES)
    Catalog(state.database).delete_unread(state.storage)
    fill(opened(state), 3)
    give(state, writer, 2)
    give(state, writer, 3)
    reverted.fail_over()


def lost(folder: Path, addresses: ProjectAddresses) -> ProjectState:
    """Return a state that has lost much; one of files is a copy of the first."""
    first = folder.parents[1] / "first"
    if addresses.is_shared or not first.exists():
        state = addresses.state(folder)
        fill(opened(state), 2, 2, known_us=7)
        lose_much(OlderState(state))
        if addresses.is_shared:
            return state
        state.database.close()
        shutil.copytree(folder, first)
        return state
    shutil.copytree(first, folder)
    return addresses.state(folder)


# In make test, at every third step.
@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.timeout(1_800)
def test_a_recovery_that_is_killed_at_any_step_is_run_again(
    tmp_path: Path, recoveries: LogVictims, addresses: ProjectAddresses, stride: int
) -> None:
    steps = 0
    for step in count(1, stride):
        state = lost(tmp_path / str(step) / "state", addresses)
        was_killed = recoveries.run("recover", state, PARTITION, step)
        report = recover_logs(state)
        assert (report.error, values(opened(state)), labels(state)) == (None, list(range(10)), [0.0, 1.0, 2.0, 3.0])
        assert recover_logs(state).logs == []
        state.database.close()
        if not was_killed:
            assert report.logs == []
            break
        steps += stride
    assert steps >= 12


def test_two_objects_for_one_position_are_reported_and_none_is_taken(reverted: OlderState) -> None:
    state, log = reverted.state, opened(reverted.state)
    reverted.save()
    fill(log, 1, 2)
    reverted.fail_over()
    stranger = log.object_name(5)
    (first,) = [each for each in objects(state) if "/00000000000000000004-" in each]
    other = ProjectState(state.folder.parent / "other")
    fill(opened(other), 5)
    opened(other).append(rows(77))
    last = opened(other).segments()[-1].stored.name
    shutil.copyfile(other / last, state / stranger)
    report = recover_logs(state)
    assert isinstance(report.error, ConflictError)
    assert values(opened(state)) == [0, 1, 2, 3, 4]
    (conflict,) = report.conflicts
    assert (conflict["position"], len(conflict["objects"]), first in conflict["objects"]) == (5, 2, False)
    (state / stranger).unlink()
    assert recover_logs(state).error is None
    assert values(opened(state)) == list(range(7))


def test_of_a_repeated_append_the_last_one_is_taken(reverted: OlderState) -> None:
    state, partition = reverted.state, "events/s/ab12/1"
    reverted.save()
    for at in (5, 6):
        opened(state, partition).append(pa.table({"x": [1], INGEST: [at]}))
        reverted.fail_over()
    assert recover_logs(state).error is None
    (part,) = opened(state, partition).read()
    assert part[INGEST].to_pylist() == [6]


def test_an_interrupted_append_before_the_copy_is_not_taken(reverted: OlderState) -> None:
    state, log = reverted.state, opened(reverted.state)
    state.storage.put(log.object_name(2), b"torn")
    name = log.object_name(2)
    shutil.copyfile(state / log.segments(2)[0].stored.name, state / name)
    reverted.save()
    fill(log, 1)
    reverted.fail_over()
    report = recover_logs(state)
    assert (report.error, report.unused, values(opened(state))) == (None, 2, [0, 1, 2, 3, 4])


def test_rows_of_before_do_not_follow_rows_that_were_added_since(reverted: OlderState) -> None:
    state, partition = reverted.state, "events/s/ab12/1"
    timed = pa.table({"x": [1], INGEST: [1]})
    opened(state, partition).append(timed)
    reverted.save()
    for at in (2, 3):
        opened(state, partition).append(pa.table({"x": [at], INGEST: [at]}))
    reverted.fail_over()
    opened(state, partition).append(pa.table({"x": [9], INGEST: [9]}))
    report = recover_logs(state)
    assert (report.conflicts[0]["position"], values(opened(state, partition))) == (2, [1, 9])
    assert "after the database was restored" in str(report.error)


def test_a_run_that_rows_name_is_in_the_ledger_again(reverted: OlderState) -> None:
    state, view = reverted.state, "batch/facts-0123456789abcdef"
    ledger = RunLedger(state.database)
    ledger.start(1)
    reverted.save()
    for run in (2, 3):
        ledger.start(10 * run)
        PartitionLog(state, view).append(pa.table({"x": [run], INGEST: [10 * run - 1], RUN: [run]}))
    reverted.fail_over()
    assert recover_logs(state).runs == [2, 3]
    times = RunLedger(state.database).times()
    assert (times.run_id.tolist(), times.started_us.tolist()) == ([1, 2, 3], [1, 19, 29])
    assert RunLedger(state.database).start(50) == 4


def test_an_object_that_a_recovery_has_taken_is_not_deleted_by_its_writer(
    reverted: OlderState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, log = reverted.state, opened(reverted.state)
    put = state.storage.put

    def recover_first(name: str, data: bytes | memoryview) -> object:
        stored = put(name, data)
        recover_logs(state)
        return stored

    monkeypatch.setattr(state.storage, "put", recover_first)
    with pytest.raises(ConflictError):
        log.append(rows(4))
    assert values(opened(state)) == [0, 1, 2, 3, 4]


def test_an_object_that_its_writer_deletes_is_not_taken(reverted: OlderState) -> None:
    state, log = reverted.state, opened(reverted.state)
    reverted.save()
    fill(log, 1)
    reverted.fail_over()
    names = Catalog(state.database).find_orphans(state.storage, "log", 2**62)
    orphans = [orphan for name in names if (orphan := read_orphan(state.storage, name))]
    recovery = PartitionRecovery(state, PARTITION, orphans, set())
    ((piece,), _) = recovery.plan()
    name = piece.orphan.stored.name
    state.database.execute("INSERT INTO removed_objects (object, readers) VALUES (?, '[]')", name)
    with pytest.raises(ConflictError, match="is being deleted"):
        recovery.apply(piece)
    Catalog(state.database).discard(state.storage, PARTITION, name)
    assert (recover_logs(state).logs, values(opened(state))) == ([], [0, 1, 2, 3])


def test_a_listed_object_that_nothing_replaces_is_reported(reverted: OlderState) -> None:
    name = opened(reverted.state).segments()[0].stored.name
    (reverted.state / name).unlink()
    report = recover_logs(reverted.state)
    assert (report.missing, report.error and report.error.exit_code) == ([name], 7)
    assert bounds(opened(reverted.state)) == [(0, 1), (2, 3)]


def test_imported_history_is_imported_again(reverted: OlderState) -> None:
    state, partition = reverted.state, "events/arrivals/import/0123456789abcdef"
    reverted.save()
    fill(opened(state, partition), 3)
    reverted.fail_over()
    report = recover_logs(state)
    assert (report.imports, report.logs, opened(state, partition).next_seq()) == (["arrivals"], [], 0)


def test_a_recovery_in_a_cloud(tmp_path: Path, bucket_url: str) -> None:
    state = ProjectState(tmp_path / "state", storage_url=bucket_url)
    fill(opened(state), 2, 2, known_us=7)
    lose_much(OlderState(state))
    shutil.rmtree(state / "cache")
    report = recover_logs(state)
    assert (report.error, values(opened(state)), labels(state)) == (None, list(range(10)), [0.0, 1.0, 2.0, 3.0])
    for segment in opened(state).segments():
        state.storage.verify(segment.stored)
    assert recover_logs(state).logs == []
