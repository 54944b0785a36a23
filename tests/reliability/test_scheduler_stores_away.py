"""A scheduler goes on, whichever of its calls of the database fails, from its start: each job runs again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from skewless.infra.platform.jobs.execution import Completion, Execution
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.infra.platform.storage.database import Database
from skewless.operations.jobs import scheduler
from skewless.project import Project
from skewless.training.scheduling import job as jobs
from skewless.training.scheduling.candidate import StopSignal
from tests.worlds.outages import Calls, Outage
from tests.worlds.trained import MODEL, Sandbox

CALLS: Calls = {Database: ("query", "execute", "transaction")}
MOST = 120  # calls of the run that are certain to come
START = 12  # calls until the first job is started
FEW = 12
LEASE_S = 0.5
POLLS = 2  # until work ends
STORE_FAILED = 7  # exit code of a job
CRONS = ("validate", "parity", "replay", "freshness", "housekeeping", "drift", "quality", "triggers")
OFF = {f"{name}_cron": "off" for name in CRONS}
DATA, RETRAIN = "materialize", f"retrain {MODEL}"


class Work(Execution):
    """Work that ends after some looks at it, or when it is killed."""

    def __init__(self, code: int) -> None:
        self._left, self._code = POLLS, code

    def poll(self) -> Completion | None:
        self._left -= 1
        return Completion(code=self._code) if self._left < 0 else None

    def kill(self) -> None:
        self._left = 0


class Watched:
    """Starts work, which fails during an outage, and stops the scheduler once each job was done after it."""

    def __init__(self, outage: Outage, stop: StopSignal) -> None:
        self.launched: list[RunId] = []
        self._outage, self._stop = outage, stop
        self._later = Counter[str]()

    def launch(self, run: Run, _words: Sequence[str]) -> Work:
        self.launched.append(run.id)
        is_over = self._outage.is_over
        self._later[run.id.job] += is_over
        if self._outage.calls > MOST and min(self._later[DATA], self._later[RETRAIN]) > 1:
            self._stop.request_stop()
        return Work(0 if is_over else STORE_FAILED)


@pytest.fixture
def project(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose jobs are due again and again; nobody else uses its database."""
    monkeypatch.setattr(scheduler, "_RETRY_S", 0.01)
    plan_jobs = jobs.list_jobs

    def list_jobs(*arguments: Any) -> list[jobs.Job]:  # noqa: ANN401 - as the original
        return [*plan_jobs(*arguments), retrain]

    soon = jobs.FixedInterval(100_000)
    retrain = jobs.Job(name=RETRAIN, words=("train", MODEL), schedule=soon, queue="models", limit_s=60, is_retried=True)
    monkeypatch.setattr(scheduler, "list_jobs", list_jobs)
    often: dict[str, Any] = {"materialize_cron": "@every 0.1s", "scheduler_lease_seconds": LEASE_S, **OFF}
    return Project(place.repo, clock=f"file:{place.repo}/.skewless/clock", **often)


@pytest.mark.parametrize(
    "seed", [*range(FEW), *(pytest.param(n, marks=pytest.mark.soak) for n in range(FEW, 20 * FEW))]
)
def test_any_call_of_a_scheduler_may_fail(project: Project, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = random.Random(seed)
    outage = Outage.draw(draw, draw.choice((START, MOST)), faults=("refused", "reply lost", "slow"), slow_s=2 * LEASE_S)
    stop = StopSignal()
    watched = Watched(outage, stop)
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "StopSignal", lambda: stop)
        patch.setattr(scheduler, "_launch_processes", lambda *_: watched.launch)
        outage.inject(patch, CALLS)
        scheduler.run_scheduler(project)
    with scheduler.hold_term(project, lambda _: (0, ""), lambda _: None) as (term, _):
        term.finish()  # what its last step has begun, if it lost the lease at the stop
    runs = Ledger(project.state).read_latest_first()
    assert "running" not in {run.state for run in runs}
    assert max(Counter(watched.launched).values()) == 1
    ended = {run.id.job for run in runs if run.state == "done"}
    assert ended == {DATA, RETRAIN}  # those of a term that lost its lease are lost
    attempts = {run.id for run in runs}
    lost = {run.id for run in runs if run.state == "lost" and run.id.job == RETRAIN and run.id.attempt < 3}
    assert {RunId(job=RETRAIN, tick_us=each.tick_us, attempt=each.attempt + 1) for each in lost} <= attempts
