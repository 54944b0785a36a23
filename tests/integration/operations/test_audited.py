"""The audit log: who changed what, failed attempts, killed processes; no secret and no key of an entity is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.contract.errors import RequestError
from skewless.infra.platform.access.audit import Actor, AuditLog, AuditRecord, local_actor
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.audited import record_settings
from skewless.project import Project
from tests.worlds.command_line import done, run
from tests.worlds.trained import FIRST_CARD, MODEL, copy_project, open_project, opened


def audit_of(project: Project) -> list[AuditRecord]:
    return AuditLog(project.state.database).read(100)


@pytest.fixture
def audited_repo(trained: Path, tmp_path: Path) -> Path:
    return copy_project(trained, tmp_path / "p")


def _add_key(project: Project) -> object:
    return project.keys.add("web")


CHANGES: dict[str, Callable[[Project], object]] = {
    "apply": lambda p: p.apply(),
    "keys.add": _add_key,
    "promote": lambda p: p.promote(MODEL, "000001"),
    "approve": lambda p: p.approve(MODEL, by="ada", reason="looks right"),
    "runs.start": lambda p: p.runs.start("materialize"),
    "sign": lambda p: p.sign([MODEL]),
}


@pytest.mark.parametrize("action", CHANGES)
def test_a_change_is_recorded_with_its_actor(audited_repo: Path, action: str) -> None:
    with opened(audited_repo) as sandbox:
        sandbox.project.actor = Actor(name="ada", place="/models/fraud")
        CHANGES[action](sandbox.project)
        (record,) = (item for item in audit_of(sandbox.project) if item.who == "ada")
    assert (record.action, record.place, record.problem) == (action, "/models/fraud", None)
    assert record.ended_us is not None
    assert record.at_us <= record.ended_us


def test_a_failed_attempt_is_recorded_and_a_dry_run_is_not(audited_repo: Path) -> None:
    with opened(audited_repo) as sandbox:
        project = sandbox.project
        before = audit_of(project)
        project.keys.add("web", dry_run=True)
        project.alerts()
        assert audit_of(project) == before
        with pytest.raises(RequestError):
            project.keys.revoke("nobody")
        record = audit_of(project)[0]
    assert (record.action, record.subject) == ("keys.revoke", "nobody")
    assert "nobody" in (record.problem or "")


def test_a_process_that_dies_leaves_a_record_without_an_outcome(audited_repo: Path) -> None:
    with opened(audited_repo) as sandbox:
        log = AuditLog(sandbox.project.state.database)
        with pytest.raises(KeyboardInterrupt), log.record(local_actor(), "promote", MODEL):
            raise KeyboardInterrupt
        assert audit_of(sandbox.project)[0].problem == "it was interrupted"
        log._requests.add("project", {"at_us": 1, "who": "a", "place": "b", "action": "promote", "arguments": {}})
        assert audit_of(sandbox.project)[0].ended_us is None


def test_no_secret_and_no_key_of_an_entity_is_in_the_log(audited_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_ALERT_WEBHOOK", "https://hooks.example/T00/s3cret")
    monkeypatch.setenv("SKEWLESS_TRACKING_URI", "https://bob:s3cret@ml.example")
    added = done("keys", "add", "web", "--repo", audited_repo)
    with opened(audited_repo) as sandbox:
        project = sandbox.project
        run("erase", "--key", f"card_id={FIRST_CARD}", "--repo", audited_repo)
    with open_project(audited_repo) as project:
        record_settings(project)
        told = json.dumps([record.as_dict() for record in audit_of(project)])
    assert "keys.add" in told
    assert "tracking_uri" in told
    assert added["key"].rpartition("_")[2] not in told
    assert "s3cret" not in told
    assert str(FIRST_CARD) not in told


def test_settings_are_recorded_once_with_what_changed(audited_repo: Path) -> None:
    with open_project(audited_repo) as project:
        record_settings(project)
        count = len(audit_of(project))
        record_settings(project)
        assert len(audit_of(project)) == count
    with Project(audited_repo, max_batch=7) as project:
        record_settings(project)
        details = audit_of(project)[0].result["changes"][0]["details"]  # type: ignore[index]
    assert {"path": "max_batch", "before": None, "after": "7"} in details


def test_pages_of_the_log_have_no_gap(tmp_path: Path) -> None:
    log = AuditLog(ProjectState(tmp_path).database)
    for number in range(1, 8):
        with log.record(local_actor(), "promote", str(number)):
            pass
    first = log.read(3)
    assert [item.subject for item in (*first, *log.read(3, first[-1].number))] == ["7", "6", "5", "4", "3", "2"]
