"""One holder's steps: claims, overlaps, lanes, limits, requests, lost runs; the work is in the test's hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.jobs.execution import Completion, Execution
from skewless.infra.platform.jobs.ledger import Ledger, Request, Requests
from skewless.infra.platform.jobs.run import Run, RunId
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.training.scheduling.job import FixedInterval, Job
from skewless.training.scheduling.leader_term import LeaderTerm

SECOND, START = 1_000_000, 1_000_000_000


class FakeWork(Execution):
    """Work that ends when the test says so, or when it is killed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ended: Completion | None = None
        self.beats, self.told = 0, list[str]()

    def end(self, code: int = 0, **outputs: Any) -> None:  # noqa: ANN401 - any JSON
        self.ended = Completion(code=code, outputs=outputs)

    def send_heartbeat(self) -> None:
        self.beats += 1

    def poll(self) -> Completion | None:
        return self.ended

    def terminate(self) -> None:
        self.told.append("terminate")

    def kill(self) -> None:
        self.told.append("kill")
        self.end(75)


class Scheduling:
    """A ledger, a clock, and the shifts that follow each other on them."""

    def __init__(self, state: Path, *jobs: Job) -> None:
        self.ledger, self.requests = Ledger(ProjectState(state)), Requests(ProjectState(state))
        self.clock, self.machine = ManualClock(START), [0.0]
        self.jobs = list(jobs)
        self.works: list[FakeWork] = []
        self.token = 0

    def launch(self, run: Run, _words: Sequence[str]) -> FakeWork:
        self.works.append(FakeWork(run))
        return self.works[-1]

    def new_term(self) -> LeaderTerm:
        self.token += 1
        self.ledger.begin_term(self.token, "h", self.clock.now_us())
        return LeaderTerm(
            ledger=self.ledger,
            requests=self.requests,
            launch=self.launch,
            clock=self.clock,
            token=self.token,
            jobs=lambda: self.jobs,
            grace_s=5.0,
            monotonic=lambda: self.machine[0],
        )

    def term(self) -> LeaderTerm:
        term = self.new_term()
        term.take_over()
        term.step()
        return term

    def drain(self, term: LeaderTerm) -> None:
        """Let all work end, until there is none."""
        while term.step() or term.running:
            for work in self.works:
                work.end()

    def at(self, seconds: float) -> None:
        self.clock.set(START + round(seconds * SECOND))

    def states(self) -> Mapping[str, str]:
        runs = self.ledger.read_latest_first()[::-1]
        names = [f"{run.id.job}@{(run.id.tick_us - START) // SECOND}+{run.id.attempt}" for run in runs]
        return dict(zip(names, [run.state for run in runs], strict=True))


def job(name: str = "a", every: int = 10, lane: Any = "data", *, again: bool = False) -> Job:  # noqa: ANN401 - a Lane
    return Job(
        name=name, words=(name,), schedule=FixedInterval(every * SECOND), queue=lane, limit_s=60.0, is_retried=again
    )


@pytest.fixture
def scheduling(tmp_path: Path) -> Scheduling:
    return Scheduling(tmp_path, job())


def test_a_tick_runs_once_and_its_end_is_written(scheduling: Scheduling) -> None:
    term = scheduling.term()
    assert scheduling.works == []
    scheduling.at(10)
    assert term.step()
    assert not term.step()
    (work,) = scheduling.works
    assert (work.run.cause, work.run.token) == ("due at 1970-01-01 00:16:50", 1)
    work.end(rows=3)
    assert term.step()
    run = scheduling.ledger.get(work.run.id)
    assert (run.state, run.outputs, run.error, run.inputs) == ("done", {"rows": 3}, None, {"words": ["a"]})
    assert not term.step()


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (5, "refused"), (1, "failed"), (-9, "failed")])
def test_the_exit_code_says_the_state(scheduling: Scheduling, code: int, state: str) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    scheduling.works[0].end(code)
    term.step()
    assert list(scheduling.states().values()) == [state]


def test_after_a_downtime_there_is_one_run(scheduling: Scheduling) -> None:
    scheduling.term()
    scheduling.at(10_000_005)
    scheduling.drain(scheduling.term())
    assert scheduling.states() == {"a@10000000+1": "done"}


def test_a_tick_while_the_last_run_is_under_way_is_refused(scheduling: Scheduling) -> None:
    term = scheduling.term()
    for second in (10, 20, 30):
        scheduling.at(second)
        term.step()
    assert scheduling.states() == {"a@10+1": "running", "a@20+1": "refused", "a@30+1": "refused"}
    scheduling.works[0].end()
    scheduling.at(40)
    term.step()
    assert len(scheduling.works) == 2


def test_jobs_of_one_lane_wait_for_each_other_and_others_do_not(scheduling: Scheduling) -> None:
    scheduling.jobs = [job("a"), job("b"), job("t", lane="traffic")]
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    assert [work.run.id.job for work in scheduling.works] == ["a", "t"]
    scheduling.works[0].end()
    term.step()
    assert [work.run.id.job for work in scheduling.works] == ["a", "t", "b"]


def test_work_beyond_its_limit_is_asked_to_end_then_killed(scheduling: Scheduling) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    (work,) = scheduling.works
    for machine, told in ((59.9, []), (60.0, ["terminate"]), (64.9, ["terminate"]), (65.0, ["terminate", "kill"])):
        scheduling.machine[0] = machine
        term.finish()
        assert work.told == told
    run = scheduling.ledger.get(work.run.id)
    assert (run.state, run.error) == ("failed", "took longer than its limit of 60 s")


def test_work_that_ends_when_it_is_asked_to_is_not_killed(scheduling: Scheduling) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    scheduling.machine[0] = 60.0
    term.finish()
    scheduling.works[0].end(-15)
    term.finish()
    assert scheduling.works[0].told == ["terminate"]
    assert list(scheduling.states().values()) == ["failed"]


def test_what_a_dead_holder_left_is_lost_and_begun_again_only_where_the_job_says_so(scheduling: Scheduling) -> None:
    scheduling.jobs = [job("a"), job("r", lane="models", again=True)]
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    scheduling.term()
    assert scheduling.states() == {"a@10+1": "lost", "r@10+1": "lost", "r@10+2": "running"}
    assert scheduling.works[-1].run.cause == "retry of r@19700101T001650Z, which was lost"
    scheduling.term()
    scheduling.term()
    assert scheduling.states() == {"a@10+1": "lost", "r@10+1": "lost", "r@10+2": "lost", "r@10+3": "lost"}


def test_a_retried_job_that_is_gone_at_the_next_step_ends_as_it_does(scheduling: Scheduling) -> None:
    scheduling.jobs = [job("r", again=True)]
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    later = scheduling.new_term()
    later.take_over()
    scheduling.jobs = []
    scheduling.drain(later)
    assert scheduling.states() == {"r@10+1": "lost", "r@10+2": "done"}
    assert later.next_us() is None


def test_an_end_is_recorded_after_an_outage_and_a_start_without_an_answer_is_begun_again(
    scheduling: Scheduling, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduling.jobs = [job("r", again=True)]
    term, ledger, start = scheduling.term(), scheduling.ledger, scheduling.ledger.start
    away = StoreError("database", "cannot be used", fix="start it")
    scheduling.at(10)
    monkeypatch.setattr(ledger, "start", lambda run: Mock(side_effect=away)(start(run)))
    with pytest.raises(StoreError):
        term.step()
    monkeypatch.undo()
    assert (scheduling.states(), term.running) == ({"r@10+1": "running"}, [])
    term.take_over()
    scheduling.works[0].end(rows=3)
    monkeypatch.setattr(ledger, "end", Mock(side_effect=away))
    with pytest.raises(StoreError):
        term.step()
    monkeypatch.undo()
    term.take_over()  # its own work is not lost
    assert term.step()
    assert not term.step()
    assert scheduling.states() == {"r@10+1": "lost", "r@10+2": "done"}
    assert ledger.get(scheduling.works[0].run.id).outputs == {"rows": 3}


def test_a_holder_whose_time_is_over_begins_and_ends_nothing(scheduling: Scheduling) -> None:
    old = scheduling.term()
    scheduling.at(10)
    old.step()
    scheduling.term()
    scheduling.works[0].end()
    with pytest.raises(ConflictError):
        old.step()
    assert scheduling.states() == {"a@10+1": "lost"}
    old.abandon("its time is over")


def test_abandoning_kills_all_work_and_the_next_leader_retries_it(scheduling: Scheduling) -> None:
    scheduling.jobs = [job("a"), job("r", lane="models", again=True)]
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    term.abandon("the lease was lost")
    assert ([work.told for work in scheduling.works], term.running) == ([["terminate", "kill"]] * 2, [])
    assert scheduling.ledger.get(scheduling.works[0].run.id).error == "the lease was lost"
    scheduling.term()
    assert scheduling.states() == {"a@10+1": "lost", "r@10+1": "lost", "r@10+2": "running"}


def test_a_beat_reaches_all_work(scheduling: Scheduling) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    term.send_heartbeats()
    assert scheduling.works[0].beats == 1


def test_a_clock_set_back_takes_no_tick_twice(scheduling: Scheduling) -> None:
    term = scheduling.term()
    for second in (10, 20, 15, 10, 19, 20, 25, 30):
        scheduling.at(second)
        scheduling.drain(term)
    assert list(scheduling.states()) == ["a@10+1", "a@20+1", "a@30+1"]


def test_a_clock_that_was_far_ahead_does_not_stop_the_job(scheduling: Scheduling) -> None:
    term = scheduling.term()
    for second in (10, 9_000, 20, 30):
        scheduling.at(second)
        scheduling.drain(term)
    assert list(scheduling.states()) == ["a@10+1", "a@20+1", "a@30+1", "a@9000+1"]


def asked(scheduling: Scheduling, kind: Any, seconds: int, name: str = "a", attempt: int = 1) -> Request:  # noqa: ANN401 - a Kind
    run_id = RunId(job=name, tick_us=START + seconds * SECOND, attempt=attempt)
    request = Request(kind=kind, run_id=run_id, cause="by hand")
    scheduling.requests.put(request)
    return request


def test_a_run_that_was_asked_for_begins_when_its_lane_is_free(scheduling: Scheduling) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    asked(scheduling, "start", 11)
    term.step()
    assert (len(scheduling.works), len(scheduling.requests.open())) == (1, 1)
    scheduling.works[0].end()
    term.step()
    assert scheduling.works[1].run.cause == "by hand"
    assert scheduling.requests.open() == []


def test_a_retry_is_the_next_attempt_and_is_done_once(scheduling: Scheduling) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    scheduling.works[0].end(1)
    asked(scheduling, "start", 10, attempt=2)
    term.step()
    scheduling.works[1].end()
    term.step()
    asked(scheduling, "start", 10, attempt=2)
    term.step()
    assert scheduling.states() == {"a@10+1": "failed", "a@10+2": "done"}
    assert scheduling.requests.open() == []


def test_cancelling_ends_work_and_what_is_not_under_way_is_left(scheduling: Scheduling) -> None:
    term = scheduling.term()
    scheduling.at(10)
    term.step()
    asked(scheduling, "cancel", 10)
    asked(scheduling, "cancel", 20)
    term.step()
    assert scheduling.works[0].told == ["terminate"]
    scheduling.works[0].end(-15)
    term.step()
    assert scheduling.states() == {"a@10+1": "cancelled"}
    assert scheduling.requests.open() == []


def test_the_same_request_twice_is_refused_and_of_no_job_forgotten(scheduling: Scheduling) -> None:
    asked(scheduling, "start", 3, name="gone")
    with pytest.raises(ConflictError, match="already has a request"):
        asked(scheduling, "start", 3, name="gone")
    scheduling.term()
    assert (scheduling.requests.open(), scheduling.works) == ([], [])


def test_the_next_moment_is_that_of_the_earliest_job(scheduling: Scheduling) -> None:
    scheduling.jobs = [job("a", 10), job("b", 25)]
    term = scheduling.term()
    scheduling.at(21)
    assert term.next_us() == START + 25 * SECOND


@pytest.mark.parametrize("fault", ["register_job", "latest_ticks"])
def test_a_job_whose_registration_fails_is_registered_by_the_next_step(
    scheduling: Scheduling, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    term = scheduling.new_term()
    with monkeypatch.context() as patch:
        patch.setattr(scheduling.ledger, fault, Mock(side_effect=StoreError("database", "is away", fix="wait")))
        with pytest.raises(StoreError):
            term.step()
    term.step()
    scheduling.at(10)
    assert term.step()
    assert len(scheduling.works) == 1
