"""A newcomer asks whether anything is wrong, follows it to a run, and acts; a planted fault appears by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from plugins.control_room.tests.browser.room import running_room
from skewless.infra.platform.alerts.alerts import Alert, Alerts
from skewless.infra.platform.jobs.ledger import Ledger, Requests
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.infra.platform.storage.project_state import ProjectState
from tests.browser.visitor import NARROW, Visitor, accessibility_problems, is_wider_than_window

_SEEN_MS = 5_000


@pytest.fixture(scope="module")
def state(fraud_project: Path, tmp_path_factory: pytest.TempPathFactory) -> ProjectState:
    """A copy of the sample project with a failed run and a run in progress."""
    repo = tmp_path_factory.mktemp("now") / "fraud"
    shutil.copytree(fraud_project, repo, ignore=shutil.ignore_patterns("redis"))
    state, now_us = ProjectState(repo / ".skewless"), time.time_ns() // 1_000
    ledger = Ledger(state)
    ledger.begin_term(1, "planted", now_us)
    for job, tick_us, outcome in (("parity", now_us - 60_000_000, "failed"), ("validate", now_us, None)):
        run = Run(id=RunId(job=job, tick_us=tick_us), cause="due", token=1, started_us=tick_us, inputs={"words": [job]})
        ledger.start(run)
        if outcome:
            ledger.end(run, "failed", tick_us + 5_000_000, token=1, outputs={"rows": 3}, error="source is <b>gone</b>")
    return state


@pytest.fixture(scope="module")
def url(state: ProjectState) -> Iterator[str]:
    with running_room(state.folder.parent) as url:
        yield url


def plant(state: ProjectState, name: str) -> None:
    alert = Alert(
        name=name, severity="critical", subject="card_days", message="9 differ", at_us=time.time_ns() // 1_000
    )
    with Alerts(state) as alerts:
        alerts.send(alert)


def lead(page: Page) -> str:
    return page.locator(".lead").inner_text()


def test_a_planted_fault_appears_and_is_resolved(visitor: Visitor, url: str, state: ProjectState) -> None:
    with visitor.visit(url) as page:
        assert "not known" in lead(page)
        assert page.locator("#gaps .state.unknown").count() > 1
        plant(state, "parity")
        expect(page.locator("#troubles")).to_contain_text("parity card_days", timeout=_SEEN_MS)
        expect(page.locator(".lead.bad")).to_contain_text("Yes:")
        row = page.locator("#troubles tr", has_text="parity card_days")
        expect(row).to_contain_text("docs/runbooks.md#skewlessparity")
        assert row.get_by_role("link", name="the view").get_attribute("href") == "/views/card_days"
        row.get_by_role("button", name="Resolve").click()
        expect(page.locator("main")).to_contain_text("parity of card_days: 9 differ")
        page.locator("main").get_by_role("button", name="Resolve").click()
        expect(page.locator(".done")).to_contain_text("is resolved.")
        expect(page.locator("#troubles")).not_to_contain_text("parity card_days")


def test_a_newcomer_follows_a_failed_job_and_retries_it(visitor: Visitor, url: str, state: ProjectState) -> None:
    with visitor.visit(url, script=False) as page:
        row = page.locator("#troubles tr", has_text="job parity")
        expect(row).to_contain_text("source is <b>gone</b>")
        row.get_by_role("link", name="the run").click()
        assert page.locator("h1").inner_text().startswith("How did run parity@")
        expect(page.locator("#outputs")).to_contain_text('"rows": 3')
        page.get_by_role("button", name="Retry").click()
        expect(page.locator("main")).to_contain_text("No scheduler leads now")
        page.locator("main").get_by_role("button", name="Retry").click()
        expect(page.locator(".done")).to_contain_text("+2 is requested.")
    assert [item.run_id.attempt for item in Requests(state).open() if item.run_id.job == "parity"] == [2]


def test_a_newcomer_sees_a_day_and_starts_and_cancels(visitor: Visitor, url: str, state: ProjectState) -> None:
    with visitor.visit(f"{url}/runs", script=False) as page:
        assert page.locator("#timeline svg a rect").count() == 2
        page.get_by_label("State").select_option("failed")
        page.get_by_role("button", name="Show").click()
        assert page.locator("#list tbody tr").count() == 1
        page.get_by_role("link", name="Day before").click()
        expect(page.locator("#timeline")).to_contain_text("No run was due on this day.")
        page.get_by_role("link", name="Today").click()
        page.locator("#jobs tr", has_text="materialize").get_by_role("button", name="Run now").click()
        page.get_by_label("Why").fill("a file came late")
        page.locator("main").get_by_role("button", name="Run now").click()
        expect(page.locator("#jobs")).to_contain_text("start materialize@")
        page.locator("#running").get_by_role("button", name="Cancel").click()
        page.locator("main").get_by_role("button", name="Cancel").click()
        expect(page.locator("#jobs")).to_contain_text("cancel validate@")
    causes = {item.run_id.job: item.cause for item in Requests(state).open()}
    assert (causes["materialize"], causes["validate"]) == ("a file came late", "cancelled by hand")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_with_faults_are_readable(visitor: Visitor, url: str, state: ProjectState, scheme: str) -> None:
    plant(state, "drift")
    (failed,) = Ledger(state).read_latest_first("parity", state="failed")
    for path in ("/", "/runs", f"/runs/{failed.id}"):
        with visitor.visit(url + path, scheme="dark" if scheme == "dark" else "light", width=NARROW) as page:
            assert not accessibility_problems(page)
            assert not is_wider_than_window(page)


def test_an_empty_project_is_not_called_good(visitor: Visitor, fraud_project: Path, tmp_path: Path) -> None:
    with running_room(fraud_project, SKEWLESS_STATE=str(tmp_path / "empty")) as url:
        for path in ("/", "/runs"):
            with visitor.visit(url + path) as page:
                assert page.locator(".lead.good").count() == 0
                assert not accessibility_problems(page)
