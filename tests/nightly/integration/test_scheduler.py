"""The scheduler on a real project: one round, refusals, signals, and the server that takes up what it promotes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from typer.main import get_command

from skewless.cli import create_app
from skewless.commands.operate import invoke_in_process
from skewless.contract.clock import from_us
from skewless.contract.errors import ConflictError, DefinitionError, RequestError, StoreError
from skewless.contract.lifecycle import Triggers
from skewless.contract.spec import Gate, ModelSpec
from skewless.infra.platform.jobs.run import Run
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.operations.jobs.scheduler import Invoke, PlannedJobs, run_once, simulate
from skewless.operations.state.housekeeping import HousekeepingReport, run_housekeeping
from skewless.project import Project
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.servers.collector import collecting
from tests.worlds.applied_plans import edit_plan
from tests.worlds.trained import MODEL, SECOND, Sandbox, ask, later_rows

ROOT = Path(__file__).parents[3]
RETRAIN = f"retrain {MODEL}"
JOBS = ["materialize", "validate", RETRAIN]
KINDS = ("materialize", "validate", "retrain")
OFF = dict.fromkeys(
    ("parity_cron", "replay_cron", "freshness_cron", "housekeeping_cron", "drift_cron", "quality_cron"), "off"
)
NIGHTLY = OFF | {"materialize_cron": "0 12 * * *", "validate_cron": "0 6 * * *"}
DAY = 86_400 * SECOND


def champions(place: Sandbox) -> list[str]:
    """Return the versions that were champion, oldest first."""
    return [move.to for move in place.project.store.aliases.history(MODEL, "champion")]


def change_spec(place: Sandbox, **changes: Any) -> None:  # noqa: ANN401 - of any field
    """Give the model another gate or cron, as an edit and an apply would."""

    def change(body: dict[str, Any]) -> None:
        (spec,) = [ModelSpec.from_dict(item) for item in body["models"]]
        body["models"] = [replace(spec, **changes).as_dict()]

    edit_plan(place.project.state, change)


def nothing(_words: Sequence[str]) -> tuple[int, str]:
    raise AssertionError


def invoke() -> Invoke:
    return invoke_in_process(get_command(create_app()))


def round_of(place: Sandbox, *only: str) -> list[Run]:
    """Run some jobs as the command line does."""
    return run_once(place.project, only, invoke())


def test_one_round_runs_each_job_once(place: Sandbox) -> None:
    place.publish(later_rows(place, 7))
    place.wait(60)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    runs = round_of(place, *KINDS)
    assert [(run.id.job, run.state) for run in runs] == [(name, "done") for name in JOBS], runs
    done = {run.id.job: run.outputs for run in runs}
    views = done["materialize"]["views"]
    assert [sum(view[name] for view in views) for name in ("accepted", "written")] == [7, 7]
    assert [model["version"] for model in done[RETRAIN]["models"]] == ["000002"]
    assert champions(place) == ["000001", "000002"]
    assert place.project.runs.list() == runs
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_gate_that_refuses_is_an_outcome_and_leaves_the_rest(place: Sandbox) -> None:
    bad = later_rows(place, 3)
    place.publish(bad.set_column(bad.column_names.index("payments_7d"), "payments_7d", [[-1, 2, 3]]))
    change_spec(place, gate=Gate(metric="auc", floor=0.999))
    place.wait(60)
    before = place.stored(place.key("card_days", ask(1)[0]["card_id"]))
    runs = round_of(place, *KINDS)
    assert [(run.id.job, run.state) for run in runs] == [(name, "refused") for name in JOBS]
    for refused in runs[:2]:
        assert "batch 'card_days'" in (refused.error or "")
    assert "misses the floor 0.9990" in (runs[2].error or "")
    assert champions(place) == ["000001"]
    assert place.stored(place.key("card_days", ask(1)[0]["card_id"])) == before


def test_only_what_was_named_is_run(place: Sandbox) -> None:
    assert [(run.id.job, run.state) for run in round_of(place, "validate")] == [("validate", "done")]
    ran = run_once(place.project, ("retrain", "validate"), lambda _words: (0, "{}"))
    assert [run.id.job for run in ran] == ["validate", RETRAIN]
    with pytest.raises(RequestError, match="is not one of materialize"):
        round_of(place, "nothing")


def test_from_python_a_round_runs_in_processes_of_its_own(place: Sandbox) -> None:
    (run,) = place.project.scheduler(only=["housekeeping"])
    assert (run.id.job, run.state, run.outputs["quarantine"]) == ("housekeeping", "done", 0)


def test_a_round_while_another_scheduler_holds_the_lease_is_refused(place: Sandbox) -> None:
    lease = Leases(place.project.state.database, ttl_s=60).acquire("scheduler", holder="other")
    with pytest.raises(ConflictError) as caught:
        round_of(place, "validate")
    assert (caught.value.value, lease) == ("other", Lease(name="scheduler", holder="other", token=1))
    assert place.project.runs.list() == []


def test_a_crash_in_a_round_is_not_swallowed_and_the_next_holder_says_it_was_lost(place: Sandbox) -> None:
    def crash(_words: Sequence[str]) -> tuple[int, str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_once(place.project, ["validate"], crash)
    assert [run.state for run in place.project.runs.list()] == ["running"]
    assert [run.state for run in round_of(place, "validate")] == ["lost", "done"]


def test_a_signal_in_a_round_finishes_the_job_and_starts_no_other(place: Sandbox) -> None:
    def interrupted(_words: Sequence[str]) -> tuple[int, str]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the main thread handles it
        return 0, '{"done": 1}'

    runs = run_once(place.project, KINDS, interrupted)
    assert [(run.id.job, run.outputs) for run in runs] == [("materialize", {"done": 1})]


def test_a_moved_clock_runs_each_tick_of_the_time_it_passes(place: Sandbox) -> None:
    said: list[tuple[str, str]] = []

    def note(words: Sequence[str]) -> tuple[int, str]:
        said.append((words[0], f"{from_us(place.now_us()):%d %H:%M}"))
        return 0, "{}"

    project = Project(place.repo, **NIGHTLY, clock=f"file:{place.state}/clock")
    start = place.now_us()
    runs = simulate(project, start + 2 * DAY, note)
    assert said == [
        ("train", "16 04:00"), ("validate", "16 06:00"), ("materialize", "16 12:00"),
        ("train", "17 04:00"), ("validate", "17 06:00"), ("materialize", "17 12:00"),
    ]  # fmt: skip
    assert {run.state for run in runs} == {"done"}
    assert start + 2 * DAY <= place.now_us() < start + 2 * DAY + 60 * SECOND
    assert simulate(project, start, note) == []
    project.close()


def test_a_trigger_retrains_with_its_cause_in_the_ledger(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_CLOCK", f"file:{place.state}/clock")
    change_spec(place, retrain=None, triggers=Triggers(age=timedelta(days=1), cooldown=timedelta(hours=1)))
    off = OFF | dict.fromkeys(("materialize_cron", "validate_cron"), "off")
    project = Project(place.repo, **off, triggers_cron="0 5 * * *", threads=1)
    runs = simulate(project, place.now_us() + 2 * DAY, invoke())
    assert [run.id.job for run in runs] == [f"triggers {MODEL}", f"triggers {MODEL}", RETRAIN]
    assert [len(run.outputs["causes"]) for run in runs[:2]] == [0, 1]
    assert runs[1].outputs["asked"] == str(runs[2].id)
    assert runs[2].cause.startswith("trigger: ")
    assert champions(place) == ["000001", "000002"]
    project.close()


def test_housekeeping_removes_what_is_too_old(place: Sandbox) -> None:
    round_of(place, "validate")
    place.predict(ask(3))
    place.wait(20 * DAY // SECOND)
    round_of(place, "validate")
    place.predict(ask(2))
    place.project.close()
    project = Project(place.repo, clock=f"file:{place.state}/clock", keep_runs_days=9, keep_predictions_days=9)
    tidied = run_housekeeping(project)
    assert (tidied.runs, tidied.predictions) == (1, 1)
    assert len(project.runs.list()) == 1
    assert len(place.log_files()) == 1
    clean = HousekeepingReport(runs=0, predictions=0, quarantine=0, merged=0, deleted=0, retired=0)
    assert replace(run_housekeeping(project), merged=0) == clean
    project.close()


def test_the_machines_own_clock_is_not_moved(place: Sandbox) -> None:
    project = Project(place.repo, clock="system")
    with pytest.raises(DefinitionError, match="cannot be moved"):
        simulate(project, place.now_us(), nothing)
    project.close()


@pytest.mark.parametrize("cron", ["every day", "61 * * * *", "* * * *", ""])
def test_a_cron_line_that_cannot_be_read_is_named(place: Sandbox, cron: str) -> None:
    project = Project(place.repo, validate_cron=cron)
    with pytest.raises(DefinitionError) as caught:
        run_once(project, (), nothing)
    assert (caught.value.thing, caught.value.value) == ("cron of job 'validate'", cron)
    project.close()


def test_each_applied_plan_is_loaded_unless_it_cannot_be_read(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = PlannedJobs(project=place.project)
    assert RETRAIN in [job.name for job in jobs()]
    definitions = jobs.inputs()
    retrain = place.project.models[0].retrain
    for wanted in (None, retrain, None):  # faster than the clock of a file system
        change_spec(place, retrain=wanted)
        assert (RETRAIN in [job.name for job in jobs()]) == (wanted is not None)
    known = jobs()
    edit_plan(place.project.state, dict.clear)
    with capture_logs() as logs:
        assert [jobs(), jobs()] == [known, known]
    assert [log["event"] for log in logs] == ["plan_not_loaded"]
    assert jobs.inputs() == definitions

    def fail(*_: object) -> None:
        raise StoreError("database", "is down", fix="start it")

    monkeypatch.setattr(Database, "query", fail)
    with capture_logs() as logs:
        assert [jobs(), jobs()] == [known, known]
    assert [log["event"] for log in logs] == ["plan_not_loaded"]


@pytest.mark.timeout(600)
def test_a_running_scheduler_ticks_is_asked_and_stops_on_sigterm(place: Sandbox) -> None:
    (place.repo / "expectations.py").unlink()
    place.publish(later_rows(place, 4))
    place.wait(60 + (14 - place.now_us() // SECOND) % 20)  # it starts before a tick, and none follows soon
    lines = {"materialize_cron": "@every 20s", "validate_cron": "off", "scheduler_lease_seconds": 2}
    (place.repo / "skewless.yaml").write_text("".join(f'{name}: "{line}"\n' for name, line in lines.items()))
    environment = os.environ | {"SKEWLESS_CLOCK": f"file:{place.state}/clock", "SKEWLESS_THREADS": "1"}
    command = [sys.executable, "-m", "skewless.cli", "scheduler", "--repo", str(place.repo), "--json"]
    with collecting() as collector:
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                first = until_run(place, "materialize")
                asked = place.project.runs.start("housekeeping", cause="new prices")
                tidied = until_run(place, "housekeeping")
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            said = process.stdout.read()
    assert (process.returncode, json.loads(said)["jobs"]) == (0, [])
    assert (first.state, sum(view["accepted"] for view in first.outputs["views"])) == ("done", 4)
    assert (tidied.id, tidied.cause, tidied.state) == (asked, "new prices", "done")
    assert not [run for run in place.project.runs.list() if run.state == "running"]
    assert collector.runs() >= {(str(first.id), "run materialize"), (str(tidied.id), "run housekeeping")}


def until_run(place: Sandbox, job: str) -> Run:
    """Wait until a job has run to its end; return the first such run."""
    while True:
        if ended := [run for run in place.project.runs.list(job) if run.state not in {"running", "refused"}]:
            return ended[0]
        time.sleep(0.05)


def test_the_ledger_is_asked_by_the_names_it_shows(place: Sandbox) -> None:
    (run,) = round_of(place, "validate")
    name = str(run.id)
    assert place.project.runs.show(name) == run
    assert place.project.runs.retry(name, dry_run=True) == place.project.runs.retry(name)
    with pytest.raises(ConflictError, match="already has a request"):
        place.project.runs.retry(name)
    with pytest.raises(ConflictError, match="has ended: done"):
        place.project.runs.cancel(name)
    with pytest.raises(RequestError, match="is not one of"):
        place.project.runs.start("nothing")
    (retried,) = simulate(place.project, place.now_us(), lambda _: (0, "{}"))
    assert (retried.id.attempt, retried.cause) == (2, f"retry of {name}, requested by hand")
    assert place.project.runs.list(state="failed") == []
    assert place.project.runs.list(limit=1)[0].id.attempt == 2


def test_a_running_server_takes_up_the_new_version_and_loses_no_request(place: Sandbox) -> None:
    answers = asyncio.run(_serve_across_a_promotion(place))
    versions = [answer.model.version for answer in answers]
    assert versions == sorted(versions)
    assert set(versions) == {"000001", "000002"}
    loaded = {version: place.load(version) for version in set(versions)}
    for answer in answers:
        expected = loaded[answer.model.version].runtime.score(answer.matrix)
        np.testing.assert_array_equal(answer.scores, expected)
    report = place.project.replay()
    assert (report.ok, report.compared) == (True, sum(len(answer.ids) for answer in answers))


async def _serve_across_a_promotion(place: Sandbox) -> list[ScoredSlice]:
    """Predict all the time while another thread trains and promotes; stop some time after the swap."""
    reader, log = RedisReader(place.project.redis_url), place.log()
    models = ModelTable(repo=place.repo, state=ProjectState(place.state), store=place.project.store, online=reader)
    await models.load()
    predictor = Predictor(online=reader, clock=place.project.clock, log=log)
    answers: list[ScoredSlice] = []

    async def client(first: int) -> None:
        while sum(answer.model.version == "000002" for answer in answers) < 30:
            answers.append(await predictor.predict(models.get(MODEL), ask(5, first)))
            await asyncio.sleep(0.005)

    clients = [asyncio.create_task(client(first)) for first in (0, 10, 20)]
    await asyncio.to_thread(place.train)
    swapped = [await models.refresh(), await models.refresh()]
    assert swapped == [[MODEL], []]  # or the clients would wait for ever
    await asyncio.gather(*clients)
    log.close()
    await reader.close()
    return answers


async def test_a_version_that_cannot_be_opened_is_refused_and_the_old_one_goes_on(place: Sandbox) -> None:
    trained = place.train()
    (trained.package.path / "spec.json").write_text("{}")
    reader = RedisReader(place.project.redis_url)
    models = ModelTable(repo=place.repo, state=ProjectState(place.state), store=place.project.store, online=reader)
    aliases = place.project.store.aliases
    aliases.move(MODEL, "champion", expect="000002", to="000001", reason="back", now_us=1)
    await models.load()
    aliases.move(MODEL, "champion", expect="000001", to="000002", reason="again", now_us=2)
    swapped = await models.refresh()
    await reader.close()
    assert (swapped, models.get(MODEL).version) == ([], "000001")
    assert "spec.json" in models.problems[MODEL]
