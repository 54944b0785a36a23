"""The scheduler on a real project: one round, refusals, signals, and the server that takes up what it promotes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from infra.online.redis_store import RedisReader
from infra.packages.aliases import Aliases
from serving.models.table import ModelTable
from serving.prediction.answer import Answer
from serving.prediction.predictor import Predictor
from skewless.errors import DefinitionError, StoreError
from skewless.spec import Gate, ModelSpec
from tests.projects import MODEL, Place, ask, copy_project, later_rows, make_project, opened
from training import scheduler
from training.scheduler import JobOutcome, jobs, run_scheduler

ROOT = Path(__file__).parents[2]
JOBS = ["materialize", "validate", f"retrain {MODEL}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = tmp_path_factory.mktemp("scheduled") / "p"
    make_project(repo)
    return repo


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Iterator[Place]:
    with opened(copy_project(trained, tmp_path / "p")) as place:
        place.project.materialize(check=False)
        yield place


def champions(place: Place) -> list[str]:
    """Return the versions that were champion, oldest first."""
    return [move.to for move in Aliases(place.project.packages).history(MODEL, "champion")]


def set_gate(place: Place, gate: Gate) -> None:
    """Give the model another gate, as an edit and an apply would."""
    path = place.state / "plan.json"
    body = json.loads(path.read_text())
    (spec,) = [ModelSpec.from_dict(item) for item in body["models"]]
    body["models"] = [replace(spec, gate=gate).as_dict()]
    path.write_text(json.dumps(body))


def test_one_round_runs_each_job_once(place: Place) -> None:
    place.publish(later_rows(place, 7))
    place.wait(60)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    outcomes = run_scheduler(place.project, once=True)
    assert [(item.job, item.ok) for item in outcomes] == [(name, True) for name in JOBS], outcomes
    done = {item.job: item.detail for item in outcomes}
    assert (done["materialize"]["accepted"], done["materialize"]["written"]) == (7, 7)
    assert done["validate"] == {"card_days": 6007, "shop_risk": 2400, "labels:fraud": 6000}
    assert (done[JOBS[2]]["version"], done[JOBS[2]]["promote"]) == ("000002", True)
    assert champions(place) == ["000001", "000002"]
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_gate_that_refuses_is_an_outcome_and_leaves_the_rest(place: Place) -> None:
    bad = later_rows(place, 3)
    place.publish(bad.set_column(bad.column_names.index("payments_7d"), "payments_7d", [[-1, 2, 3]]))
    set_gate(place, Gate(metric="auc", floor=0.999))
    place.wait(60)
    before = place.stored(place.key("card_days", ask(1)[0]["card_id"]))
    outcomes = run_scheduler(place.project, once=True)
    assert [(item.job, item.ok) for item in outcomes] == [(JOBS[0], False), (JOBS[1], False), (JOBS[2], True)]
    for refused in outcomes[:2]:
        assert refused.detail["kind"] == "gate"
        assert refused.detail["thing"].startswith("batch 'card_days'")
    assert outcomes[2].detail["promote"] is False
    assert "misses the floor 0.9990" in outcomes[2].detail["reason"]
    assert champions(place) == ["000001"]
    assert place.stored(place.key("card_days", ask(1)[0]["card_id"])) == before


class Fake:
    """A project whose jobs are functions of the test."""

    def __init__(self, materialize: Callable[[], dict[str, Any]]) -> None:
        self.models: tuple[ModelSpec, ...] = ()
        self.crons = {"materialize": "*/5 * * * *", "validate": "0 * * * *"}
        self.run_materialize = materialize
        self.validated = 0

    def refresh(self) -> None:
        """Keep everything."""

    def run_validate(self) -> dict[str, Any]:
        self.validated += 1
        return {"rows": 1}

    def run_retrain(self, model: str) -> dict[str, Any]:
        raise AssertionError(model)


def test_an_error_that_a_user_can_act_on_does_not_stop_the_round() -> None:
    def fail() -> dict[str, Any]:
        raise StoreError("Redis at x", "did not answer", fix="start it")

    project = Fake(fail)
    outcomes = run_scheduler(project, once=True)
    assert [(item.job, item.ok) for item in outcomes] == [("materialize", False), ("validate", True)]
    assert outcomes[0].detail["kind"] == "store"
    assert outcomes[0].detail["thing"] == "Redis at x"


def test_a_crash_in_a_round_is_not_swallowed(caplog: pytest.LogCaptureFixture) -> None:
    def crash() -> dict[str, Any]:
        raise ZeroDivisionError

    project = Fake(crash)
    with caplog.at_level("CRITICAL"), pytest.raises(ZeroDivisionError):
        run_scheduler(project, once=True)
    assert project.validated == 0


def test_a_signal_in_a_round_finishes_the_job_and_starts_no_other() -> None:
    def interrupted() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the main thread handles it
        return {"done": 1}

    project = Fake(interrupted)
    outcomes = run_scheduler(project, once=True)
    assert [(item.job, item.detail) for item in outcomes] == [("materialize", {"done": 1})]
    assert project.validated == 0


@pytest.mark.parametrize("cron", ["every day", "61 * * * *", "* * * *", ""])
def test_a_cron_line_that_cannot_be_read_is_named(cron: str) -> None:
    project = Fake(dict)
    project.crons["validate"] = cron
    with pytest.raises(DefinitionError) as caught:
        run_scheduler(project)
    assert (caught.value.thing, caught.value.value) == ("cron of job 'validate'", cron)


def test_only_models_with_a_cron_are_retrained(place: Place) -> None:
    project = Fake(dict)
    spec = place.project.applied.model(MODEL)
    project.models = (spec, replace(spec, name="other", retrain=None))
    assert [job.name for job in jobs(project)] == JOBS


TICKING = """
import sys
from pathlib import Path
import structlog
from apscheduler.triggers.cron import CronTrigger
from training import scheduler
from tests.projects import open_project
structlog.configure(processors=[structlog.processors.JSONRenderer()])
soon = CronTrigger(second="*/2", timezone="UTC")
scheduler.cron_trigger = lambda job, _: soon if job == "materialize" else CronTrigger(year=2099)
project = open_project(Path(sys.argv[1]))
scheduler.run_scheduler(project)
project.close()
print("closed", flush=True)
"""


def _until_a_job_ran(lines: IO[str]) -> dict[str, Any]:
    """Return what was logged until then, by event."""
    said: dict[str, Any] = {}
    while "job" not in said:
        line = json.loads(lines.readline())
        assert line.get("level") != "error", line
        said[line["event"]] = line
    return said


def test_a_running_scheduler_ticks_and_stops_on_sigterm(place: Place) -> None:
    (place.repo / "expectations.py").unlink()
    place.publish(later_rows(place, 4))
    place.wait(60)
    command = [sys.executable, "-u", "-c", TICKING, str(place.repo)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = _until_a_job_ran(process.stdout)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
    assert process.returncode == 0
    assert rest.splitlines()[-1] == "closed"
    crons = {"materialize": "*/5 * * * *", "validate": "0 * * * *", JOBS[2]: "0 4 * * *"}
    assert said["scheduler_started"]["jobs"] == crons
    assert (said["job"]["job"], said["job"]["ok"]) == ("materialize", True)
    place.project.refresh()
    assert [report.accepted for report in place.project.materialize(check=False)] == [0, 0]
    run = json.loads((place.state / "runs/0000000003.end.json").read_text())
    (covered,) = run["covers"].values()
    assert covered["last"] - covered["first"] + 1 == 4


def test_a_running_server_takes_up_the_new_version_and_loses_no_request(place: Place) -> None:
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


async def _serve_across_a_promotion(place: Place) -> list[Answer]:
    """Predict without a pause while another thread trains and promotes; stop some time after the swap."""
    reader, log = RedisReader(place.project.redis_url), place.log()
    models = ModelTable(repo=place.repo, state=place.state, online=reader)
    await models.load()
    predictor = Predictor(online=reader, clock=place.project.clock, log=log)
    answers: list[Answer] = []

    async def client(first: int) -> None:
        while sum(answer.model.version == "000002" for answer in answers) < 30:
            answers.append(await predictor.predict(models.get(MODEL), ask(10, first)))

    clients = [asyncio.create_task(client(first)) for first in (0, 10, 20)]
    await asyncio.to_thread(place.train)
    swapped = [await models.refresh(), await models.refresh()]
    assert swapped == [[MODEL], []]  # or the clients would wait for ever
    await asyncio.gather(*clients)
    log.close()
    await reader.close()
    return answers


def test_a_version_that_cannot_be_opened_is_refused_and_the_old_one_goes_on(place: Place) -> None:
    trained = place.train()
    (trained.package.path / "spec.json").write_text("{}")

    async def refresh() -> tuple[list[str], str, dict[str, str]]:
        reader = RedisReader(place.project.redis_url)
        models = ModelTable(repo=place.repo, state=place.state, online=reader)
        aliases = Aliases(place.project.packages)
        aliases.move(MODEL, "champion", expect="000002", to="000001", reason="back", now_us=1)
        await models.load()
        aliases.move(MODEL, "champion", expect="000001", to="000002", reason="again", now_us=2)
        swapped = await models.refresh()
        await reader.close()
        return swapped, models.get(MODEL).version, models.problems

    swapped, version, problems = asyncio.run(refresh())
    assert (swapped, version) == ([], "000001")
    assert "spec.json" in problems[MODEL]


def test_outcomes_are_plain(place: Place) -> None:
    outcome = JobOutcome(job="a", ok=True, seconds=0.1, detail={"n": place.now_us()})
    assert json.loads(json.dumps(outcome.as_dict()))["job"] == "a"
    assert scheduler.jobs(place.project)[0].cron == "*/5 * * * *"
