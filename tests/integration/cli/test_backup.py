"""A backup is restored elsewhere, also into the other kind of database; a server runs while its database is down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from skewless.contract.clock import SystemClock
from skewless.contract.errors import ConflictError, PlaceError, StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.online.private_server import PrivateServer
from skewless.infra.outcomes.log import OutcomeLog
from skewless.infra.outcomes.writer import OutcomeWriter, outcome_spool
from skewless.infra.storage.documents import Documents
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.storage.table_copy import count_rows
from skewless.operations.backup import back_up, restore
from skewless.operations.checkup.logs import check_logs
from skewless.project import Project
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import ROWS, done, run
from tests.worlds.waiting import eventually, until
from tools.postgres_server import PostgresServer

EVENTS = "events/payments/3f2a9c01ab/0"


@pytest.fixture
def elsewhere(unasked: Path, tmp_path: Path) -> Iterator[Path]:
    """A checkout of the same definitions without any state."""
    repo = tmp_path / "elsewhere"
    shutil.copytree(unasked, repo, ignore=shutil.ignore_patterns(".skewless"))
    yield repo
    PrivateServer(repo / ".skewless").stop()


def facts(repo: Path) -> list[Any]:
    """Return what commands say about the state of a project, without its places and ages."""
    status = done("status", "--repo", repo)
    return [
        status["plan"],
        [{key: view[key] for key in ("view", "log_rows", "rejected")} for view in status["views"]],
        done("versions", "fraud", "--repo", repo)["versions"],
        done("runs", "list", "--repo", repo),
        done("keys", "list", "--repo", repo),
    ]


def test_a_backup_is_restored_into_sqlite_and_postgres(
    unasked: Path, elsewhere: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("keys", "add", "web", "--repo", unasked)
    before = facts(unasked)
    dry = done("backup", tmp_path / "b", "--dry-run", "--repo", unasked)
    assert not (tmp_path / "b").exists()
    written = done("backup", tmp_path / "b", "--repo", unasked)
    assert (written["rows"], written["files"]) == (dry["rows"], dry["files"])
    assert sum(written["rows"].values()) > 5
    assert run("backup", tmp_path / "b", "--repo", unasked).code == ConflictError.exit_code

    assert done("restore", tmp_path / "b", "--dry-run", "--repo", elsewhere)["dry_run"]
    assert not (elsewhere / ".skewless").exists()
    done("restore", tmp_path / "b", "--repo", elsewhere)
    assert facts(elsewhere) == before
    assert run("restore", tmp_path / "b", "--repo", elsewhere).code == ConflictError.exit_code
    done("materialize", "--repo", elsewhere)
    scores = done("predict", "fraud", "--row", json.dumps(ROWS[:1]), "--repo", elsewhere)["predictions"]

    monkeypatch.setenv("SKEWLESS_STATE", "shared")
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", postgres_url)
    done("restore", tmp_path / "b", "--repo", elsewhere)
    assert not (elsewhere / "shared" / "skewless.db").exists()
    assert facts(elsewhere) == before
    done("materialize", "--repo", elsewhere)
    again = done("predict", "fraud", "--row", json.dumps(ROWS[:1]), "--repo", elsewhere)["predictions"]
    assert [row["score"] for row in again] == [row["score"] for row in scores]
    done("parity", "--repo", elsewhere)
    PrivateServer(elsewhere / "shared").stop()


def test_an_interrupted_backup_continues_and_an_interrupted_restore_is_run_again(
    unasked: Path, elsewhere: Path, tmp_path: Path
) -> None:
    def fail_at(number: int) -> Any:  # noqa: ANN401 - a callback
        def on_file(copied: int, _total: int) -> None:
            if copied == number:
                raise KeyboardInterrupt

        return on_file

    with Project(unasked) as project:
        with pytest.raises(KeyboardInterrupt):
            project.backup(tmp_path / "b", on_file=fail_at(3))
        assert not (tmp_path / "b").exists()
        project.backup(tmp_path / "b")
        assert not (tmp_path / "b.partial").exists()
    with Project(elsewhere) as project:
        with pytest.raises(KeyboardInterrupt):
            project.restore(tmp_path / "b", on_file=fail_at(3))
        assert not any(count_rows(project.state.database).values())
        backup = project.restore(tmp_path / "b")
        assert count_rows(project.state.database) == backup.rows


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
from skewless.infra.storage.project_state import ProjectState
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
            assert str((restored / segment.stored.name).stat().st_mtime_ns) == segment.stored.stamp
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


@pytest.mark.parametrize("damage", ["description", "file", "nothing there"])
def test_an_incomplete_backup_is_refused(unasked: Path, elsewhere: Path, tmp_path: Path, damage: str) -> None:
    with Project(unasked) as project:
        project.backup(tmp_path / "b")
    if damage == "description":
        (tmp_path / "b/backup.json").write_text("{")
    elif damage == "file":
        next((tmp_path / "b/files").rglob("*.parquet")).unlink()
    else:
        shutil.rmtree(tmp_path / "b")
    error = StoreError if damage == "file" else PlaceError
    with Project(elsewhere) as project, pytest.raises(error):
        project.restore(tmp_path / "b")
    assert not any(count_rows(ProjectState(elsewhere / ".skewless").database).values())


def test_a_server_starts_and_serves_while_its_database_is_away(
    unasked: Path, elsewhere: Path, tmp_path: Path, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Project(unasked) as project:
        project.backup(tmp_path / "b")
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", own_postgres.start())
    done("restore", tmp_path / "b", "--repo", elsewhere)
    done("materialize", "--repo", elsewhere)
    body = json.dumps({"model": "fraud", "rows": ROWS[:1]})
    replies = []

    server = PredictionServer.start(elsewhere)
    replies.append(server.post("/predict", body))
    assert _down_signs(server) == ({}, "0.0")
    assert done("status", "--repo", elsewhere)["server"]["problems"] == {}
    own_postgres.stop()
    replies.append(server.post("/predict", body))
    eventually(lambda: _down_signs(server), _says_down)
    findings = run("doctor", "--repo", elsewhere, "--json").body["checks"]
    assert [item["verdict"] for item in findings if item["name"] == "server"] == ["warn"]
    assert run("status", "--repo", elsewhere).code == StoreError.exit_code
    server.stop()

    server = PredictionServer.start(elsewhere)  # without its database
    replies.append(server.post("/predict", body))
    assert _says_down(_down_signs(server))
    assert [status for status, _ in replies] == [200, 200, 200]
    assert len({reply["predictions"][0]["score"] for _, reply in replies}) == 1

    own_postgres.start()
    with Project(elsewhere) as project:
        targets = Documents(project.state.database, "target_versions")
        until(lambda: _put(targets, {"unloaded": ["fraud"], "pinned": {}}))
    eventually(lambda: _down_signs(server), lambda signs: signs == ({}, "0.0"))
    until(lambda: server.post("/predict", body)[0] != 200)
    server.stop()


def _down_signs(server: PredictionServer) -> tuple[dict[str, str], str]:
    """Return the details of the readiness, which must be given, and the gauge."""
    status, _, text = server.ask("GET", "/health/ready")
    assert (status, json.loads(text)["ready"]) == (200, True)
    (line,) = [line for line in server.get("/metrics").splitlines() if line.startswith("skewless_database_down ")]
    return json.loads(text)["details"], line.split()[1]


def _says_down(signs: tuple[dict[str, str], str]) -> bool:
    details, gauge = signs
    return details.keys() == {"database"} and details["database"].startswith("is down for ") and gauge == "1.0"


def _put(documents: Documents, body: dict[str, Any]) -> bool:
    try:
        documents.put("project", body)
    except StoreError:
        return False  # a connection from before
    return True
