"""A leader's term: each step ends finished runs, handles requests, starts due jobs, and records all in the ledger."""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skewless.contract.clock import Clock, from_us
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.jobs.execution import Completion, Execution, Launch
from skewless.infra.platform.jobs.ledger import Ledger, Request, Requests
from skewless.infra.platform.jobs.run import Run, RunId, State
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.training.scheduling.job import DueTick, Job, find_due_ticks

_log = EventLogger()
_GRACE_S = 10.0
_MAX_ATTEMPTS = 3
_MOST_TICKS = 1_000  # ticks per job in memory; the ledger prevents that an older tick starts twice


@dataclass(kw_only=True)
class _ActiveRun:
    """A run that is in progress.

    Args:
        ends_at: when it is terminated, and later when it is killed; seconds of the monotonic clock.
        verdict: state for the ledger that overrides that of the work; None: no override.
        completion: of the work; None: it is in progress.
    """

    run: Run
    job: Job
    work: Execution
    ends_at: float
    verdict: State | None = None
    error: str | None = None
    completion: Completion | None = None


@dataclass(kw_only=True)
class LeaderTerm:
    """The work of one holder of the lease.

    Args:
        token: its fencing token; the ledger has recorded the term.
        jobs: returns the current jobs; called at each step.
        inputs: returns further inputs of each run, such as the applied plan.
        grace_s: seconds between terminating work and killing it.
        on_end: called with every run that has ended.
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
    _registered_us: dict[str, int] = field(default_factory=dict)
    _active: list[_ActiveRun] = field(default_factory=list)

    def take_over(self) -> list[Run]:
        """Record open runs that do not run here as lost, and start their retries; return them."""
        # The term is in the ledger, so the previous leader can no longer record an end: runs that are open stay open.
        jobs, own = {job.name: job for job in self.jobs()}, set(self.running)
        return [self._close_lost_run(run, jobs.get(run.id.job)) for run in self.ledger.open() if run.id not in own]

    def step(self) -> bool:
        """End finished and overdue runs, handle requests and start due jobs; return whether any run changed."""
        jobs = {job.name: job for job in self.jobs()}
        for name in jobs.keys() - self._registered_us.keys():
            self._register(name)
        # Lists, because `any` would stop at the first change of a generator. Finished runs come first: they free their
        # queues for the requests and ticks that follow.
        ended = [self._check_run(item) for item in list(self._active)]
        call_handler = [self._handle_request(request, jobs) for request in self.requests.open()]
        started = [self._start_tick(item) for item in find_due_ticks(jobs.values(), self._last(), self.clock.now_us())]
        return any((*ended, *call_handler, *started))

    def next_us(self) -> int | None:
        """Return the time of the next due tick by the schedules; None if there is none."""
        last = self._last()
        times = [
            job.schedule.next(max(last.get(job.name, 0), self.clock.now_us()))
            for job in self.jobs()
            if job.schedule is not None and job.has_work()
        ]
        return min((time_us for time_us in times if time_us is not None), default=None)

    def start(self, job: Job, cause: str) -> bool:
        """Start a requested run now; return whether it started."""
        return self._start_run(job, RunId(job=job.name, tick_us=self.clock.now_us()), cause)

    @property
    def running(self) -> list[RunId]:
        """The ids of the runs in progress."""
        return [item.run.id for item in self._active]

    def finish(self) -> None:
        """End the runs that have finished; start none."""
        for item in list(self._active):
            self._check_run(item)

    def send_heartbeats(self) -> None:
        """Send heartbeats to all work; the thread that renews the lease calls this."""
        # A copy: the main thread changes the list meanwhile.
        for item in list(self._active):
            item.work.send_heartbeat()

    def abandon(self, error: str) -> None:
        """Kill all work, and record it as lost if the ledger still accepts writes of this term.

        The run of a job that is retried stays open: the next leader records the loss and starts the retry.
        """
        for item in self._active:
            item.work.terminate()
        for item in self._active:
            item.work.kill()
        runs, self._active = self._active, []
        for item in runs:
            if item.job.is_retried:
                continue
            try:
                self._end(item.run, "lost", error=error)
            except (ConflictError, StoreError):
                _log.warning("lost_run_not_recorded", run=str(item.run.id))

    def _close_lost_run(self, run: Run, job: Job | None) -> Run:
        """Start the retry of a lost run, then end the run; in this order a kill loses neither."""
        attempt = run.id.attempt + 1
        if job is not None and job.is_retried and attempt <= _MAX_ATTEMPTS:
            self._start_run(job, replace(run.id, attempt=attempt), f"retry of {run.id}, which was lost")
        return self._end(run, "lost", error="its scheduler ended")

    def _register(self, job: str) -> None:
        registered_us = self.ledger.register_job(job, self.token, self.clock.now_us())
        self._ticks[job] = self.ledger.latest_ticks(job, _MOST_TICKS)
        self._registered_us[job] = registered_us  # last: if the database is unavailable, the next step registers it

    def _last(self) -> dict[str, int]:
        """Return each job's latest tick up to now; later ticks, after the clock was set back, do not count yet."""
        now_us = self.clock.now_us()
        last = {}
        # Not all jobs that have ticks: a job whose lost run was retried may be gone before it was registered.
        for job, registered_us in self._registered_us.items():
            ticks = self._ticks[job]
            n_due = bisect_right(ticks, now_us)
            last[job] = max(registered_us, ticks[n_due - 1]) if n_due else registered_us
        return last

    def _check_run(self, item: _ActiveRun) -> bool:
        """End a run whose work has finished, terminate it at its limit; return whether it ended."""
        item.completion = completion = item.completion or item.work.poll()
        if completion is None and self.monotonic() >= item.ends_at:
            self._terminate(item, "failed", f"took longer than its limit of {item.job.limit_s:g} s")
            item.completion = completion = item.work.poll()
        if completion is None:
            return False
        # Terminated work may exit with any code, so the verdict of its termination counts.
        self._end(item.run, item.verdict or completion.state, completion, error=item.error)
        # Last: if the database is unavailable, the next step records the end again.
        self._active.remove(item)
        return True

    def _terminate(self, item: _ActiveRun, verdict: State, error: str) -> None:
        """Terminate work; the second time, after the grace time, kill it."""
        if item.verdict is not None:
            item.work.kill()
            return
        item.verdict, item.error = verdict, error
        item.ends_at = self.monotonic() + self.grace_s
        item.work.terminate()

    def _handle_request(self, request: Request, jobs: Mapping[str, Job]) -> bool:
        """Handle a request; return whether it changed anything. A start waits while its queue is busy."""
        if request.kind == "cancel":
            changed = self._cancel(request)
        else:
            job = jobs.get(request.run_id.job)
            if job is not None and self._is_busy(job.queue):
                return False
            # A job that no longer exists cannot start: only its request is removed.
            changed = job is None or self._start_run(job, request.run_id, request.cause)
        # Last: after a kill in between, the ledger refuses to start or end the run again, and the request is removed
        # then.
        self.requests.remove(request)
        return changed

    def _cancel(self, request: Request) -> bool:
        for item in self._active:
            if item.run.id == request.run_id:
                self._terminate(item, "cancelled", request.cause)
                return True
        return False

    def _start_tick(self, item: DueTick) -> bool:
        """Start the run of a tick; refuse it if the job's last run is in progress; wait while its queue is busy."""
        if any(other.job.name == item.job.name for other in self._active):
            return self._refuse(item)
        if self._is_busy(item.job.queue):
            return False
        return self._start_run(item.job, item.run_id, f"due at {from_us(item.tick_us):%Y-%m-%d %H:%M:%S}")

    def _refuse(self, item: DueTick) -> bool:
        # Claimed, so that the tick does not become due again when the last run ends.
        run = self._claim(item.job, item.run_id, "due while its last run was in progress")
        if run is not None:
            self._end(run, "refused", error="its last run is still in progress")
        return run is not None

    def _start_run(self, job: Job, run_id: RunId, cause: str) -> bool:
        run = self._claim(job, run_id, cause)
        if run is None:
            return False
        # After the claim: a kill between the two leaves a run that the next leader records as lost, and never work that
        # the ledger does not have.
        work = self.launch(run, job.words)
        ends_at = self.monotonic() + job.limit_s
        self._active.append(_ActiveRun(run=run, job=job, work=work, ends_at=ends_at))
        _log.info("run_started", run=str(run.id), cause=cause)
        return True

    def _claim(self, job: Job, run_id: RunId, cause: str) -> Run | None:
        inputs = {"words": list(job.words), **self.inputs()}
        run = Run(id=run_id, cause=cause, token=self.token, started_us=self.clock.now_us(), inputs=inputs)
        # The tick counts as started even if another scheduler has claimed it, so this one does not try again.
        is_ours = self.ledger.start(run)
        insort(self._ticks.setdefault(run_id.job, []), run_id.tick_us)
        return run if is_ours else None

    def _is_busy(self, queue: str) -> bool:
        return any(item.job.queue == queue for item in self._active)

    def _end(self, run: Run, state: State, completion: Completion | None = None, *, error: str | None = None) -> Run:
        outputs = completion.outputs if completion else {}
        problem = error or (completion.error if completion else None)
        log = completion.log if completion else ""
        now_us = self.clock.now_us()
        record = self.ledger.end(run, state, now_us, token=self.token, outputs=outputs, error=problem, log=log)
        self.on_end(record)
        write = _log.info if record.state == "done" else _log.error
        write("run_ended", run=str(run.id), state=record.state, seconds=record.seconds, error=record.error)
        return record
