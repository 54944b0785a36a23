"""What ran, runs, will run? A day of the ledger, one run, and what can be done with runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from skewless.contract.clock import from_us
from skewless.contract.errors import ConflictError, RequestError, ScopeError, StoreError
from skewless.infra.platform.jobs.ledger import Ledger, Requests
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.operations import BY_HAND
from skewless.project import Project
from skewless_control_room.access import Viewer
from skewless_control_room.app import to_json
from skewless_control_room.page import Known, Query, Unknown
from skewless_control_room.pages import ACTIONS
from skewless_control_room.pages.run import read_run
from skewless_control_room.pages.runs import RunsOfDay, read_runs
from skewless_control_room.render import render
from tests.worlds.trained import MODEL, NOW, SECOND, copy_project, open_project

DAY = 86_400 * SECOND
MIDNIGHT = NOW - 12 * 3_600 * SECOND
TODAY, YESTERDAY = f"{from_us(NOW):%Y-%m-%d}", f"{from_us(NOW - DAY):%Y-%m-%d}"
BY_NAME = {action.name: action for action in ACTIONS}


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of the trained project."""
    with open_project(copy_project(trained, tmp_path / "p")) as project:
        yield project


@pytest.fixture
def ledger(project: Project) -> Ledger:
    ledger = Ledger(project.state)
    ledger.begin_term(1, "first", NOW)
    return ledger


def add(
    ledger: Ledger,
    tick_us: int,
    job: str = "materialize",
    state: str | None = "done",
    *,
    cause: str = "due",
    error: str | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> str:
    """Record a run of ten seconds; without a state it runs."""
    run = Run(id=RunId(job=job, tick_us=tick_us), cause=cause, token=1, started_us=tick_us, inputs={"words": [job]})
    ledger.start(run)
    if state is not None:
        ledger.end(run, state, tick_us + 10 * SECOND, token=1, outputs=outputs, error=error)  # type: ignore[arg-type]
    return str(run.id)


def look(project: Project, *, models: frozenset[str] | None = None, **values: str) -> RunsOfDay:
    page = read_runs(project, Query(values=values, models=models))
    assert orjson.loads(to_json(page))
    return page


def ids(page: RunsOfDay) -> list[str]:
    assert isinstance(page.runs, Known)
    return [run.id for run in page.runs.value.runs]


def as_html(template: str, page: object) -> str:
    actions = {name.replace("-", "_"): action for name, action in BY_NAME.items()}
    values = {"viewer": Viewer(name="local", right="operate"), "actions": actions, "page": page}
    shared = {"title": "t", "project_name": "p", "menu": [], "here": "/", "url": "/", "searched": "", "done": ""}
    return render(template, shared | values | {"now": NOW, "took_ms": 0, "live_s": 0, "json_url": ""})


def test_a_day_has_its_runs_latest_first(project: Project, ledger: Ledger) -> None:
    add(ledger, MIDNIGHT - 1)
    first, second = add(ledger, MIDNIGHT), add(ledger, NOW, "parity", "failed", error="differs")
    page = look(project)
    assert (page.day, page.is_today, page.previous) == (TODAY, True, YESTERDAY)
    assert ids(page) == [second, first]
    assert len(ids(look(project, day=YESTERDAY))) == 1
    assert ids(look(project, state="failed")) == [second]
    assert ids(look(project, job="materialize")) == [first]
    assert isinstance(page.timeline, Known)
    assert page.timeline.value.counts == {"done": 1, "failed": 1}
    assert [name for name, _ in page.timeline.value.lanes] == ["materialize", "parity"]


def test_all_runs_of_a_day_are_reached_page_by_page(project: Project, ledger: Ledger) -> None:
    made = [add(ledger, MIDNIGHT + i * SECOND, f"drift m{i % 3}") for i in range(120)]
    page, found = look(project), list[str]()
    while True:
        found += ids(page)
        assert len(ids(page)) <= 50
        assert isinstance(page.runs, Known)
        if not page.runs.value.before:
            break
        page = look(project, before=page.runs.value.before)
    assert found == made[::-1]


def test_close_runs_of_one_result_are_one_bar_and_a_failure_is_its_own(project: Project, ledger: Ledger) -> None:
    for minute in range(10):
        add(ledger, MIDNIGHT + minute * 60 * SECOND, state="failed" if minute == 5 else "done")
    page = look(project)
    assert isinstance(page.timeline, Known)
    ((_, bars),) = page.timeline.value.lanes
    assert [(bar.kind, bar.text.split(":")[0]) for bar in bars] == [
        ("good", "5 runs of materialize"),
        ("good", "4 runs of materialize"),
        ("bad", "materialize"),
    ]


def test_many_jobs_share_a_lane_by_kind(project: Project, ledger: Ledger) -> None:
    for i in range(60):
        add(ledger, MIDNIGHT + i * SECOND, f"drift m{i:02}")
    page = look(project)
    assert isinstance(page.timeline, Known)
    assert (page.timeline.value.by_kind, [name for name, _ in page.timeline.value.lanes]) == (True, ["drift"])
    chosen = look(project, kind="drift")
    assert isinstance(chosen.timeline, Known)
    assert (len(chosen.timeline.value.lanes), chosen.timeline.value.left_out) == (24, 36)
    assert "36 jobs have no lane" in as_html("runs.html", chosen)


def test_jobs_have_next_ticks_and_say_what_is_overdue(project: Project, ledger: Ledger) -> None:
    add(ledger, NOW - DAY, "validate")
    page = look(project)
    assert isinstance(page.jobs, Known)
    jobs = {job.job: job for job in page.jobs.value.jobs}
    assert jobs["validate"].next_us == NOW + 3_600 * SECOND
    assert jobs["validate"].overdue_us is not None
    assert jobs["parity"].last is None
    assert page.jobs.value.leader == ""
    assert "no scheduler leads" in as_html("runs.html", page)


def test_a_run_shows_what_the_ledger_has(project: Project, ledger: Ledger) -> None:
    name = add(ledger, NOW, f"drift {MODEL}", "failed", error="source is missing", outputs={"rows": 3})
    page = read_run(project, Query(path={"run": name}))
    assert (page.run.state, page.error, page.model) == ("failed", "source is missing", MODEL)
    assert orjson.loads(page.outputs) == {"rows": 3}
    assert isinstance(page.attempts, Known)
    assert [item.id for item in page.attempts.value] == [name]
    assert "source is missing" in as_html("run.html", page)


def test_runs_are_started_retried_and_cancelled(project: Project, ledger: Ledger) -> None:
    failed, running = add(ledger, NOW, "parity", "failed"), add(ledger, NOW, "validate", None)
    steps = (
        ("run-now", {"job": "materialize", "cause": "new file"}),
        ("retry-run", {"run": failed}),
        ("cancel-run", {"run": running}),
    )
    for name, values in steps:
        assert BY_NAME[name].preview(project, values)
        assert not [item for item in Requests(project.state).open() if item.kind == "cancel"]
        assert "is requested" in BY_NAME[name].run(project, values)
    requests = Requests(project.state).open()
    assert sorted((item.kind, item.run_id.job, item.cause) for item in requests) == [
        ("cancel", "validate", "cancelled by hand"),
        ("start", "materialize", "new file"),
        ("start", "parity", f"retry of {failed}, {BY_HAND}"),
    ]
    page = look(project)
    assert isinstance(page.jobs, Known)
    assert len(page.jobs.value.requested) == 3


def test_actions_on_wrong_runs_are_refused(project: Project, ledger: Ledger) -> None:
    ended = add(ledger, NOW, "parity")
    with pytest.raises(ConflictError, match="has ended"):
        BY_NAME["cancel-run"].preview(project, {"run": ended})
    for name in ("retry-run", "cancel-run"):
        with pytest.raises(RequestError):
            BY_NAME[name].preview(project, {"run": "x"})
    with pytest.raises(RequestError, match="is not one of"):
        BY_NAME["run-now"].preview(project, {"job": "rm -rf"})


def test_a_viewer_of_one_model_sees_no_run_of_others(project: Project, ledger: Ledger) -> None:
    add(ledger, NOW, f"drift {MODEL}")
    other = add(ledger, NOW, "drift secret", None)
    page = look(project, models=frozenset({MODEL}))
    assert b"secret" not in to_json(page)
    assert len(ids(page)) == 1
    with pytest.raises(ScopeError):
        read_run(project, Query(path={"run": other}, models=frozenset({MODEL})))


@pytest.mark.parametrize(
    "values", [{"day": "x"}, {"day": "9999-12-31"}, {"state": "x"}, {"before": "x"}, {"job": "x" * 2_000}]
)
def test_wrong_queries_are_refused(project: Project, values: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        read_runs(project, Query(values=values))


def test_hostile_texts_stay_texts(project: Project, ledger: Ledger) -> None:
    text = "<script>alert(1)</script>\u202e\n" + "x" * 1_000_000
    name = add(ledger, NOW, "parity", "failed", cause=text, error=text, outputs={"a": text})
    add(ledger, NOW, text[:25].replace("/", ""), "failed")
    for html in (
        as_html("runs.html", look(project)),
        as_html("run.html", read_run(project, Query(path={"run": name}))),
    ):
        assert "<script>alert" not in html
        assert "\u202e" not in html
        assert len(html) < 100_000


def test_a_project_without_a_plan_or_database_answers(trained: Path, tmp_path: Path) -> None:
    copy_project(trained, tmp_path / "p")
    with Project(tmp_path / "p", state=str(tmp_path / "empty")) as project:
        page = look(project)
        assert ids(page) == []
        assert "There is no job" in as_html("runs.html", page)
    with Project(tmp_path / "p", database_url="postgresql://nobody@127.0.0.1:9/x") as project:
        page = look(project)
        assert all(isinstance(part, Unknown) for part in (page.running, page.timeline, page.runs, page.jobs))
        assert "Not known" in as_html("runs.html", page)
        with pytest.raises(StoreError):
            read_run(project, Query(path={"run": "parity@20260115T000000Z"}))


def test_a_corrupt_run_hides_only_the_parts_that_have_it(project: Project, ledger: Ledger) -> None:
    add(ledger, NOW)
    project.state.database.execute("UPDATE job_runs SET start_body = '{'")
    page = look(project)
    assert isinstance(page.timeline, Unknown)
    assert isinstance(page.running, Known)
