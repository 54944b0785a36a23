"""Is anything wrong now? Faults and gaps appear, and nothing that is unknown looks good."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest

from skewless.contract.errors import RequestError
from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity, save_last
from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.platform.host import processes
from skewless.infra.platform.host.processes import Process
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.operations.health.finding import CheckFinding
from skewless.project import Project
from skewless_control_room.access import Viewer
from skewless_control_room.app import to_json
from skewless_control_room.page import Known, Query, Unknown
from skewless_control_room.pages.now import ACTIONS, Now, read_now
from skewless_control_room.render import render
from tests.worlds.trained import MODEL, NOW, SECOND, copy_project, open_project

MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of the trained project; its online store does not run."""
    with open_project(copy_project(trained, tmp_path / "p")) as project:
        yield project


def look(project: Project, *models: str) -> Now:
    """Return what the page shows; its JSON and its HTML can be made."""
    page = read_now(project, Query(models=frozenset(models) if models else None))
    assert orjson.loads(to_json(page))
    return page


def troubles(page: Now) -> list[CheckFinding]:
    return [item for item in page.troubles.items if isinstance(item, CheckFinding)]


def gaps(page: Now) -> dict[str, CheckFinding]:
    return {item.name: item for item in page.gaps.items if isinstance(item, CheckFinding)}


def raise_alert(project: Project, subject: str = MODEL, *, name: str = "drift", at_us: int = NOW) -> None:
    with Alerts(project.state) as alerts:
        alerts.send(Alert(name=name, severity="critical", subject=subject, message="moved", at_us=at_us))


def run_job(project: Project, job: str, state: str, tick_us: int, outputs: dict[str, object] | None = None) -> None:
    ledger = Ledger(project.state)
    token = ledger.latest_token() or 1
    if not ledger.latest_token():
        ledger.begin_term(token, "first", NOW)
    run = Run(id=RunId(job=job, tick_us=tick_us), cause="due", token=token, started_us=tick_us)
    ledger.start(run)
    error = None if state == "done" else "source is missing"
    ledger.end(run, state, tick_us + SECOND, token=token, outputs=outputs, error=error)  # type: ignore[arg-type]


def beat(project: Project, pid: int, *, silent_s: float = 0.0, host: str | None = None) -> None:
    now_s = project.state.database.now_us() / 1e6
    process = Process(
        kind="server", host=host or socket.gethostname(), pid=pid, started_s=now_s - 60, beat_s=now_s - silent_s
    )
    body = asdict(replace(process, plan=project.applied.plan.hash, detail={"models": {MODEL: "000001"}}))
    del body["has_ended"]
    here = processes._here() if host is None else "elsewhere"
    Documents(project.state.database, "process").put(f"server-{pid}-{here}-0a0a", body)


def check_everything(project: Project) -> None:
    """Store a good result of each check, a minute ago."""
    needed, at_us = project.needed, NOW - MINUTE
    save_last(
        project.state,
        LastParity,
        [
            LastParity(view=needed.label(view), hash=view.hash, at_us=at_us, compared=9, mismatches=0)
            for view in needed.plan.all_views
        ],
    )
    save_last(
        project.state,
        Freshness,
        [
            Freshness(view=needed.label(view), hash=view.hash, at_us=at_us, limit_us=0, newest_us=at_us)
            for view in needed.plan.all_views
        ],
    )
    for spec in project.models:
        versions = [{"version": "000001", "predictions": 9, "labelled": 9}]
        run_job(project, f"quality {spec.name}", "done", at_us, {"versions": versions})
        body = {"verdict": "stable", "until_us": at_us, "rows": 9, "version": "000001"}
        Records(project.state.database, "drift_check").add(spec.name, body)


def test_a_project_without_checks_is_not_called_good(project: Project) -> None:
    page = look(project)
    assert page.sentence.kind != "good"
    assert {"parity", "freshness", "quality", "drift", "online values"} <= gaps(page).keys()
    assert gaps(page)["parity"].total == len(list(project.needed.plan.all_views))
    assert isinstance(page.store, Known)
    assert not page.store.value.online.reachable


def test_recent_results_leave_no_gap_but_the_store(project: Project) -> None:
    check_everything(project)
    assert gaps(look(project)).keys() == {"online values"}


def test_results_older_than_the_schedule_allows_are_gaps(project: Project) -> None:
    check_everything(project)
    project.clock.set(NOW + 48 * HOUR)  # type: ignore[attr-defined]  # the clock of a test
    assert {"parity", "freshness", "quality", "drift"} <= gaps(look(project)).keys()


def test_labels_that_are_not_mature_are_a_gap(project: Project) -> None:
    check_everything(project)
    run_job(project, f"quality {MODEL}", "done", NOW - SECOND, {"versions": [{"predictions": 812, "labelled": 0}]})
    assert "labels are not mature: none of 812 predictions" in gaps(look(project))["quality"].detail


def test_alerts_stand_first_the_oldest_first(project: Project) -> None:
    raise_alert(project, "young", name="parity", at_us=NOW - MINUTE)
    raise_alert(project, MODEL, at_us=NOW - HOUR)
    page = look(project)
    assert page.sentence.kind == "bad"
    first, second = troubles(page)[:2]
    assert (first.name, first.since_us, first.models) == (f"drift {MODEL}", NOW - HOUR, [MODEL])
    assert (second.views, second.fix, second.runbook) == (
        ["young"],
        "skewless parity young",
        "docs/runbooks.md#skewlessparity",
    )


def test_each_runbook_exists(project: Project) -> None:
    for name in ("parity", "freshness", "replay", "drift", "rollout", "model_refused", "prediction_log", "else"):
        raise_alert(project, name, name=name)
    for kind in ("server", "stream", "scheduler"):
        raise_alert(project, f"{kind} host 1", name="process_silent")
    text = (Path(__file__).parents[3] / "docs/runbooks.md").read_text()
    headings = {f"docs/runbooks.md#{line[3:].lower()}" for line in text.splitlines() if line.startswith("## ")}
    assert {item.runbook for item in troubles(look(project)) if item.alert} <= headings


def test_an_alert_is_resolved_by_the_action(project: Project) -> None:
    raise_alert(project)
    (action,) = ACTIONS
    assert MODEL in action.preview(project, {"number": "1"})[0]
    assert action.run(project, {"number": "1"}) == "Alert 1 is resolved."
    assert not [item for item in troubles(look(project)) if item.alert]
    for number in ("1", "", "²", "9" * 100):
        with pytest.raises(RequestError, match="is not open"):
            action.preview(project, {"number": number})


def test_a_dead_process_of_this_machine_is_seen_at_once(project: Project) -> None:
    # Heartbeats of a minute from now: however slow this test is, none is missed.
    beat(project, os.getpid(), silent_s=-60.0)
    beat(project, 2**22 + 1, silent_s=-60.0)  # above the largest pid
    beat(project, 2**22 + 2, silent_s=-60.0, host="elsewhere")
    page = look(project)
    assert isinstance(page.processes, Known)
    lives = {row.process.pid: row.process.lives for row in page.processes.value.items}  # type: ignore[attr-defined]
    assert lives == {os.getpid(): True, 2**22 + 1: False, 2**22 + 2: True}
    (found,) = [item for item in troubles(page) if "heartbeat" in item.detail]
    assert found.since_us is not None
    assert abs(found.since_us - project.clock.now_us()) < 5 * MINUTE


def test_a_job_that_failed_is_wrong_until_it_is_done(project: Project) -> None:
    run_job(project, "materialize", "failed", NOW - HOUR)
    (found,) = [item for item in troubles(look(project)) if item.run]
    assert (found.name, found.detail) == ("job materialize", "failed: source is missing")
    run_job(project, "materialize", "done", NOW - MINUTE)
    assert not [item for item in troubles(look(project)) if item.run]


def test_a_viewer_of_one_model_sees_nothing_of_others(project: Project) -> None:
    raise_alert(project, MODEL)
    raise_alert(project, "secret")
    run_job(project, "drift secret", "failed", NOW - HOUR)
    page = look(project, MODEL)
    assert b"secret" not in to_json(page)
    assert [item.models for item in troubles(page) if item.models] == [[MODEL]]


def test_hostile_texts_stay_texts(project: Project) -> None:
    text = "<script>alert(1)</script>\u202e\n" + "x" * 1_000_000
    raise_alert(project, text)
    run_job(project, text[:30], "failed", NOW - HOUR)
    beat(project, 1, host=text)
    html = as_html(look(project))
    assert "<script>alert" not in html
    assert "\u202e" not in html
    assert len(html) < 100_000


def test_lists_are_bounded(project: Project) -> None:
    for i in range(150):
        raise_alert(project, f"m{i:03}")
    page = look(project)
    assert (len(page.troubles.items), page.troubles.total >= 150) == (100, True)
    assert "The page shows 100 of" in as_html(page)


def test_an_empty_project_answers(tmp_path: Path, trained: Path) -> None:
    copy_project(trained, tmp_path / "p")
    with Project(tmp_path / "p", state=str(tmp_path / "empty")) as project:
        page = look(project)
        assert page.sentence.kind != "good"
        assert isinstance(page.database, Known)
        assert not page.database.value.exists
        assert gaps(page)["plan"].fix == "skewless apply"
        assert as_html(page)


def test_a_database_that_is_down_is_wrong_and_the_rest_unknown(tmp_path: Path, trained: Path) -> None:
    copy_project(trained, tmp_path / "p")
    with Project(tmp_path / "p", database_url="postgresql://nobody@127.0.0.1:9/x") as project:
        began = time.monotonic()
        page = look(project)
        assert page.sentence.kind == "bad"
        assert troubles(page)[0].name == "database"
        assert all(isinstance(part, Unknown) for part in (page.plan, page.processes, page.database))
        assert "alerts, processes, jobs and checks" in gaps(page)
        assert "state good" not in as_html(page)
        assert time.monotonic() - began < 60


def test_a_store_that_should_answer_and_does_not_is_wrong(tmp_path: Path, trained: Path) -> None:
    copy_project(trained, tmp_path / "p")
    with open_project(tmp_path / "p", redis_url="redis://127.0.0.1:9/0") as project:
        page = look(project)
        assert "online store" in [item.name for item in troubles(page) if item.is_critical]


@pytest.mark.parametrize("setting", ["redis_url", "database_url"])
def test_a_place_that_never_answers_does_not_hold_up_the_page(tmp_path: Path, trained: Path, setting: str) -> None:
    copy_project(trained, tmp_path / "p")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        scheme = "redis" if setting == "redis_url" else "postgresql"
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0"
        with open_project(tmp_path / "p", **{setting: url}) as project:
            began = time.monotonic()
            page = look(project)
            assert time.monotonic() - began < 8  # a connection takes at least ten seconds to fail
    assert page.sentence.kind == "bad"
    assert "has not answered within" in "".join(item.detail for item in troubles(page))


def test_corrupt_facts_are_unknown(project: Project) -> None:
    project.state.database.execute("UPDATE records SET body = '{' WHERE kind = 'plan'")
    Documents(project.state.database, "alerts").put("project", [{"number": "x"}])
    page = look(project)
    assert isinstance(page.plan, Unknown)
    assert "alerts" in gaps(page)
    assert page.sentence.kind != "good"


def as_html(page: Now) -> str:
    """Return the page as HTML."""
    values = {"viewer": Viewer(name="local", right="operate"), "actions": {"resolve_alert": ACTIONS[0]}, "page": page}
    shared = {"title": "t", "project_name": "p", "menu": [], "here": "/", "url": "/", "searched": "", "done": ""}
    return render("now.html", shared | values | {"now": NOW, "took_ms": 0, "live_s": 0, "json_url": ""})
