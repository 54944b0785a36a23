"""A backup is restored elsewhere, also into the other kind of database; a server runs while its database is down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import ConflictError, PlaceError, StoreError
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import count_rows
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.project import Project
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import ROWS, done, run
from tests.worlds.waiting import eventually, until
from tools.postgres_server import PostgresServer


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


# In make test, test_answer_memory.py has a process whose database is away, also when it starts.
@pytest.mark.soak
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
    return details.get("database", "").startswith("is down for ") and gauge == "1.0"  # logs may wait, too


def _put(documents: Documents, body: dict[str, Any]) -> bool:
    try:
        documents.put("project", body)
    except StoreError:
        return False  # a connection from before
    return True
