"""One scheduler's time as the holder: each step ends, takes up and begins what is due, and writes it to the ledger."""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import structlog

from skewless.contract.clock import Clock, from_us
from skewless.contract.errors import ConflictError
from skewless.infra.jobs.execution import Completion, Execution, Launch
from skewless.infra.jobs.ledger import Ledger
from skewless.infra.jobs.requests import Request, Requests
from skewless.infra.jobs.run import Run, RunId, State
from skewless.training.scheduling.job import DueTick, Job, due

_log = structlog.get_logger()
_GRACE_S = 10.0
_MOST_ATTEMPTS = 3
_REMEMBERED = 1_000  # ticks of a job; an older one cannot be taken twice either, since it stands in the ledger


@dataclass(kw_only=True)
class _UnderWay:
    """A run with its work.

    Args:
        ends_at: when it is asked to end, seconds of the monotonic clock; later when it is killed.
        verdict: what the ledger will say, if not what the work says.
    """

    run: Run
    job: Job
    work: Execution
    ends_at: float
    verdict: State | None = None
    error: str | None = None


@dataclass(kw_only=True)
class LeaderTerm:
    """The work of one holder of the lease.

    Args:
        token: its fencing token, of a term that has begun in the ledger.
        jobs: what there is to do now, asked at each step.
        inputs: what each run is given besides its words, such as the plan in force.
        grace_s: seconds between asking work to end and killing it.
        on_end: told of every run that has ended.
    """

    ledger: Ledger
    requests: Requests
    launch: Launch
    clock: Clock
    token: int
    jobs: Callable[[], Sequence[Job]]
    inputs: Callable[[], Mapping[str, Any]] = dict
    grace_s: float = _GRACE_S
    monotonic: Callable[[], float] = time.monotonic
    on_end: Callable[[Run], None] = lambda _: None
    _ticks: dict[str, list[int]] = field(default_factory=dict)
    _known: dict[str, int] = field(default_factory=dict)
    _under_way: list[_UnderWay] = field(default_factory=list)

    def take_over(self) -> list[Run]:
        """Say of the runs that the holder before has left that they are lost; return them, begun again or not."""
        jobs = {job.name: job for job in self.jobs()}
        return [self._make_good(self.ledger.get(run_id), jobs.get(run_id.job)) for run_id in self.ledger.open()]

    def step(self) -> bool:
        """End what has ended or must, then begin what is due or asked for; say whether anything was done."""
        jobs = {job.name: job for job in self.jobs()}
        for name in jobs.keys() - self._known.keys():
            self._learn(name)
        moved = [self._look(item) for item in list(self._under_way)]
        taken = [self._answer(request, jobs) for request in self.requests.open()]
        begun = [self._take(item) for item in due(jobs.values(), self._last(), self.clock.now_us())]
        return any((*moved, *taken, *begun))

    def next_us(self) -> int | None:
        """Return when the next tick is due; None if there is none. Nothing is looked at beyond the schedules."""
        last = self._last()
        moments = [
            job.schedule.next(max(last.get(job.name, 0), self.clock.now_us()))
            for job in self.jobs()
            if job.schedule is not None and job.is_wanted()
        ]
        return min((moment for moment in moments if moment is not None), default=None)

    def start(self, job: Job, cause: str) -> bool:
        """Begin a run that somebody asked for, as of now; say whether it was."""
        return self._begin(job, RunId(job=job.name, tick_us=self.clock.now_us()), cause)

    @property
    def running(self) -> list[RunId]:
        """The runs under way."""
        return [item.run.id for item in self._under_way]

    def finish(self) -> None:
        """End what has ended; begin nothing."""
        for item in list(self._under_way):
            self._look(item)

    def beat(self) -> None:
        """Tell all work that the lease is held; called by the thread that renews it."""
        for item in list(self._under_way):
            item.work.send_heartbeat()

    def abandon(self, error: str) -> None:
        """Kill all work, and say so where the ledger still listens."""
        for item in self._under_way:
            item.work.terminate()
        for item in self._under_way:
            item.work.kill()
        left, self._under_way = self._under_way, []
        for item in left:
            try:
                self._end(item.run, "lost", error=error)
            except ConflictError:
                _log.warning("run_left_to_the_next_holder", run=str(item.run.id))

    def _make_good(self, run: Run, job: Job | None) -> Run:
        """Begin a lost run once more, then close it: a kill between the two loses neither."""
        attempt = run.id.attempt + 1
        if job is not None and job.again and attempt <= _MOST_ATTEMPTS:
            self._begin(job, replace(run.id, attempt=attempt), f"retry of {run.id}, which was lost")
        return self._end(run, "lost", error="its scheduler ended")

    def _learn(self, job: str) -> None:
        self._known[job] = self.ledger.register_job(job, self.token, self.clock.now_us())
        newest = islice(self.ledger.read_latest_first(job), _REMEMBERED)
        self._ticks[job] = sorted(run_id.tick_us for run_id in newest)

    def _last(self) -> dict[str, int]:
        """Return each job's newest tick that is not after now: one beyond it, of a clock set back, counts later."""
        now_us = self.clock.now_us()
        return {
            job: max(self._known[job], ticks[bisect_right(ticks, now_us) - 1] if ticks and ticks[0] <= now_us else 0)
            for job, ticks in self._ticks.items()
        }

    def _look(self, item: _UnderWay) -> bool:
        """End a run whose work has ended or whose time is over; say whether it was."""
        ended = item.work.poll()
        if ended is None and self.monotonic() >= item.ends_at:
            self._stop(item, "failed", f"took longer than its limit of {item.job.limit_s:g} s")
            ended = item.work.poll()
        if ended is None:
            return False
        self._under_way.remove(item)
        self._end(item.run, item.verdict or ended.state, ended, error=item.error)
        return True

    def _stop(self, item: _UnderWay, verdict: State, error: str) -> None:
        """Ask work to end; the second time, after the time of grace, kill it."""
        if item.verdict is not None:
            item.work.kill()
            return
        item.verdict, item.error = verdict, error
        item.ends_at = self.monotonic() + self.grace_s
        item.work.terminate()

    def _answer(self, request: Request, jobs: Mapping[str, Job]) -> bool:
        """Do what a request says; say whether it is done."""
        if request.kind == "cancel":
            done = self._cancel(request)
        else:
            job = jobs.get(request.run_id.job)
            if job is not None and self._is_taken(job.lane):
                return False
            done = job is None or self._begin(job, request.run_id, request.cause)
        self.requests.remove(request)
        return done

    def _cancel(self, request: Request) -> bool:
        for item in self._under_way:
            if item.run.id == request.run_id:
                self._stop(item, "cancelled", request.cause)
                return True
        return False

    def _take(self, item: DueTick) -> bool:
        """Begin the run of a tick, or refuse it if the job's last run is still under way; wait for its lane else."""
        if any(other.job.name == item.job.name for other in self._under_way):
            return self._refuse(item)
        if self._is_taken(item.job.lane):
            return False
        return self._begin(item.job, item.run_id, f"due at {from_us(item.tick_us):%Y-%m-%d %H:%M:%S}")

    def _refuse(self, item: DueTick) -> bool:
        run = self._claim(item.job, item.run_id, "due while its last run was under way")
        if run is not None:
            self._end(run, "refused", error="its last run is still under way")
        return run is not None

    def _begin(self, job: Job, run_id: RunId, cause: str) -> bool:
        run = self._claim(job, run_id, cause)
        if run is None:
            return False
        work = self.launch(run, job.words)
        ends_at = self.monotonic() + job.limit_s
        self._under_way.append(_UnderWay(run=run, job=job, work=work, ends_at=ends_at))
        _log.info("run_began", run=str(run.id), cause=cause)
        return True

    def _claim(self, job: Job, run_id: RunId, cause: str) -> Run | None:
        inputs = {"words": list(job.words), **self.inputs()}
        run = Run(id=run_id, cause=cause, token=self.token, started_us=self.clock.now_us(), inputs=inputs)
        is_ours = self.ledger.start(run)
        insort(self._ticks.setdefault(run_id.job, []), run_id.tick_us)
        return run if is_ours else None

    def _is_taken(self, lane: str) -> bool:
        return any(item.job.lane == lane for item in self._under_way)

    def _end(self, run: Run, state: State, ended: Completion | None = None, *, error: str | None = None) -> Run:
        outputs = ended.outputs if ended else {}
        said = error or (ended.error if ended else None)
        known = self.ledger.end(run, state, self.clock.now_us(), token=self.token, outputs=outputs, error=said)
        self.on_end(known)
        told = _log.info if known.state == "done" else _log.error
        told("run_ended", run=str(run.id), state=known.state, seconds=known.seconds, error=known.error)
        return known
