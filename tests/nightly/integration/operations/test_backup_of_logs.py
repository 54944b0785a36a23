"""A backup of logs has one state of all of them, whatever is appended, merged and deleted meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from skewless.contract.clock import SystemClock
from skewless.contract.errors import StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import count_rows
from skewless.infra.records.outcomes.log import OutcomeLog, OutcomeWriter, outcome_spool
from skewless.operations.health.checkup.project import check_logs
from skewless.operations.state.backup import back_up, restore

EVENTS = "events/payments/3f2a9c01ab/0"


@pytest.fixture(params=["sqlite", "postgres"])
def backed_up(request: pytest.FixtureRequest, tmp_path: Path) -> ProjectState:
    """The state of a project with logs, in each kind of database."""
    url = None
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_url")
        url = f"{server}{'&' if '?' in server else '?'}schema=backup_{uuid.uuid4().hex}"
    state = ProjectState(tmp_path / "state", url)
    for name in (EVENTS, "batch/card_days-41680bd7e8103439"):
        log = PartitionLog(state, name)
        for at in range(6):
            log.record_end(at, at, 10 + log.append(pa.table({"x": [at]})).first)
    return state


def _project(state: ProjectState) -> Any:  # noqa: ANN401 - what a backup needs of a workspace
    return SimpleNamespace(state=state, clock=SystemClock())


def _values(state: ProjectState) -> dict[str, list[Any]]:
    logs = [PartitionLog(state, name) for name in Catalog(state.database).partitions()]
    return {
        log.partition: [row for rows in log.read(columns=["x", SEQ, KNOWN_AT]) for row in rows.to_pylist()]
        for log in logs
    }


_BUSY = """
import sys, time
from pathlib import Path
import pyarrow as pa
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
state = ProjectState(Path(sys.argv[1]), sys.argv[2] or None)
catalog = Catalog(state.database)
while True:
    log = PartitionLog(state, sys.argv[3])
    at = log.next_seq()
    log.append(pa.table({"x": [at]}))
    log.record_end(at, at, 10 + at)
    compact(log, keep=2)
    catalog.delete_unread(state.storage)
    print(at, flush=True)
"""


# In make test, on PostgreSQL: it lets readers and writers work at once.
@pytest.mark.parametrize("backed_up", [pytest.param("sqlite", marks=pytest.mark.soak), "postgres"], indirect=True)
def test_a_backup_under_writers_has_one_state_of_all_logs(backed_up: ProjectState, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _BUSY, str(backed_up.folder), backed_up.database_url or "", EVENTS]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        lines = busy.stdout

        def wait(copied: int, _total: int) -> None:
            if copied % 3 == 1:
                lines.readline()

        try:
            lines.readline()
            for number in range(5):
                back_up(_project(backed_up), tmp_path / str(number), on_file=wait)
        finally:
            busy.kill()
    for number in range(5):
        restored = ProjectState(tmp_path / f"state{number}")
        backup = restore(restored, tmp_path / str(number))
        assert count_rows(restored.database) == backup.rows
        values = _values(restored)
        assert [row["x"] for row in values[EVENTS]] == list(range(len(values[EVENTS])))
        # The last row may have been appended and not yet applied.
        assert [row[KNOWN_AT] for row in values[EVENTS][:-1]] == list(range(10, 9 + len(values[EVENTS])))
        assert {finding.verdict for finding in check_logs(restored)} == {"ok"}
        log = PartitionLog(restored, EVENTS)
        for segment in log.segments():
            assert str((restored / segment.stored.name).stat().st_mtime_ns) == segment.stored.stamp.partition("-")[0]
        assert log.append(pa.table({"x": [len(values[EVENTS])]})).first == len(values[EVENTS])


@pytest.mark.parametrize("damage", ["removed", "altered", "cut"])
@pytest.mark.parametrize("place", ["project", "backup"])
def test_a_removed_or_altered_object_is_refused_by_name(
    backed_up: ProjectState, tmp_path: Path, damage: str, place: str
) -> None:
    object_name = PartitionLog(backed_up, EVENTS).segments()[2].stored.name
    if place == "backup":
        back_up(_project(backed_up), tmp_path / "b")
    path = (backed_up.folder if place == "project" else tmp_path / "b/files") / object_name
    whole, time_ns = path.read_bytes(), path.stat().st_mtime_ns
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:] if damage == "altered" else whole[:-9])
        os.utime(path, ns=(time_ns, time_ns))
    restored = ProjectState(tmp_path / "restored")
    match = rf"{object_name}: is {'missing' if damage == 'removed' else 'corrupt'}"
    if place == "project":
        with pytest.raises(StoreError, match=match):
            back_up(_project(backed_up), tmp_path / "b")
    else:
        with pytest.raises(StoreError, match=match):
            restore(restored, tmp_path / "b")
    path.write_bytes(whole)
    if place == "project":
        back_up(_project(backed_up), tmp_path / "b")
    assert not any(count_rows(restored.database).values())
    restore(restored, tmp_path / "b")
    assert _values(restored) == _values(backed_up)


def test_an_interrupted_backup_of_a_log_that_was_merged_since_is_complete(
    backed_up: ProjectState, tmp_path: Path
) -> None:
    def stop(copied: int, _total: int) -> None:
        if copied == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(_project(backed_up), tmp_path / "b", on_file=stop)
    assert len(list((tmp_path / "b.partial/files").rglob("*.parquet"))) == 4
    kept = next((tmp_path / "b.partial/files").rglob("*.parquet"))
    kept.write_bytes(b"torn by a power cut")
    compact(PartitionLog(backed_up, EVENTS), keep=1)
    backup = back_up(_project(backed_up), tmp_path / "b")
    objects = {path.name for path in (tmp_path / "b/files").rglob("*.parquet")}
    segments = [
        each for name in Catalog(backed_up.database).partitions() for each in PartitionLog(backed_up, name).segments()
    ]
    assert objects == {Path(segment.stored.name).name for segment in segments}
    assert backup.files == len([path for path in (tmp_path / "b/files").rglob("*") if path.is_file()])
    restore(ProjectState(tmp_path / "restored"), tmp_path / "b")
    assert _values(ProjectState(tmp_path / "restored")) == _values(backed_up)


def test_outcomes_that_wait_to_be_shipped_are_in_a_backup_once(backed_up: ProjectState, tmp_path: Path) -> None:
    writer = OutcomeWriter(outcome_spool(backed_up), on_stored=lambda: None)
    for label in range(3):
        writer.append([Outcome(prediction_id="p", label=label, known_at=label)], received_at=label, source="http")
    shipped: list[int] = []

    def ship(_copied: int, _total: int) -> None:
        shipped.append(outcome_spool(backed_up).ship())

    back_up(_project(backed_up), tmp_path / "b0", on_file=ship)
    assert sum(shipped) == 3
    for number in range(2):
        restored = ProjectState(tmp_path / f"restored{number}")
        restore(restored, tmp_path / f"b{number}")
        with duckdb.connect() as connection:
            assert OutcomeLog(restored, connection).counts(10).rows == 3
        back_up(_project(restored), tmp_path / f"b{number + 1}")


def test_a_backup_moves_a_project_into_a_cloud_and_back(
    backed_up: ProjectState, tmp_path: Path, bucket_url: str
) -> None:
    before = _values(backed_up)
    cloud = ProjectState(tmp_path / "cloud", storage_url=bucket_url)
    back_up(_project(backed_up), tmp_path / "b0")
    restore(cloud, tmp_path / "b0")
    assert not (cloud / "log").exists()
    assert {finding.verdict for finding in check_logs(cloud)} == {"ok"}
    assert _values(cloud) == before
    log = PartitionLog(cloud, EVENTS)
    log.append(pa.table({"x": [6]}))
    compact(log, keep=1)
    back_up(_project(cloud), tmp_path / "b1")
    home = ProjectState(tmp_path / "home")
    restore(home, tmp_path / "b1")
    assert _values(home) == _values(cloud)
    assert [segment.stored.name for segment in PartitionLog(home, EVENTS).segments()] == [
        segment.stored.name for segment in log.segments()
    ]
    assert not (home / "cache").exists()
