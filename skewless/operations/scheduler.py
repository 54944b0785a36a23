"""The scheduler of a project: for ever on wall time, one round now, or a stretch of time on a clock that it moves."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import DefinitionError, SkewlessError

if TYPE_CHECKING:
    from skewless.infra.jobs.execution import Execution, Launch
    from skewless.infra.jobs.run import Run
    from skewless.training.scheduling.candidate import Candidate
    from skewless.training.scheduling.job import Job
    from skewless.training.scheduling.leader_term import LeaderTerm
    from skewless.training.scheduling.stop_signal import StopSignal
    from skewless.workspace import Workspace

Invoke = Callable[[Sequence[str]], tuple[int, str]]
_log = structlog.get_logger()
_PROGRAM = (sys.executable, "-m", "skewless.cli")
_RUN, _TOKEN = "SKEWLESS_RUN", "SKEWLESS_FENCING_TOKEN"
_SILENT_SHARE = 0.8  # of the lease: a job ends before another scheduler can be the holder


@dataclass(kw_only=True)
class PlannedJobs:
    """The jobs of the plan in force; a plan that is applied meanwhile is taken up, one that cannot be used is not."""

    project: Workspace
    _stamp: int = -1
    _jobs: list[Job] = field(default_factory=list)

    def __call__(self) -> list[Job]:
        """Return them.

        Raises:
            SkewlessError: the first plan cannot be used.
        """
        stamp = self._changed_at()
        if stamp != self._stamp:
            try:
                self._jobs = self._read()
            except SkewlessError as error:
                if self._stamp < 0:
                    raise
                _log.error("plan_not_taken_up", problem=error.sentence())
            self._stamp = stamp
        return self._jobs

    def inputs(self) -> dict[str, Any]:
        """Return what a run is given besides its words."""
        return {"definitions": self.project.applied.definitions_sha256}

    def _read(self) -> list[Job]:
        from skewless.operations.rollout import wants_step
        from skewless.training.scheduling.job import list_jobs

        self.project.refresh()
        in_rollout = partial(wants_step, self.project)
        return list_jobs(self.project.settings, self.project.models, in_rollout)

    def _changed_at(self) -> int:
        try:
            return (self.project.state / "plan.json").stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def serve(project: Workspace) -> None:
    """Run the jobs when they are due, in processes of their own, until SIGINT or SIGTERM.

    What is under way then is finished; a second signal ends it.

    Raises:
        DefinitionError: a cron line cannot be read.
        StoreError: the disk refused.
    """
    from skewless.infra.host.metrics import serve_metrics
    from skewless.infra.host.processes import ProcessRecord, send_heartbeats
    from skewless.infra.jobs.metrics import RunMetrics
    from skewless.infra.plans.applied_plan import AppliedPlanReader
    from skewless.training.scheduling.stop_signal import StopSignal

    jobs = PlannedJobs(project=project)
    tally = RunMetrics()
    port = project.settings.scheduler_metrics_port
    if port:
        serve_metrics(tally, port, "scheduler_metrics_port")
    _log.info("scheduler_started", jobs=[job.name for job in jobs()])
    stop_signal = StopSignal()
    presence, plan = ProcessRecord(project.state, "scheduler"), AppliedPlanReader(project.state)
    with (
        stop_signal.handle_signals(),
        _candidate(project, jobs, _processes(project), stop_signal, tally.count) as candidate,
    ):
        tally.is_holder = lambda: candidate.is_holder
        with send_heartbeats(presence, plan.hash, lambda: {"holds_the_lease": candidate.is_holder}):
            candidate.serve()


def once(project: Workspace, only: Sequence[str] = (), invoke: Invoke | None = None) -> list[Run]:
    """Run each job once, now; a signal ends the round after the job under way.

    Args:
        invoke: runs a verb in this process; None: each runs in a process of its own.
        only: names of jobs, or their first words; none: all that are on a schedule.

    Raises:
        ConflictError: another scheduler is the holder.
        RequestError: a name is none of a job.
        StoreError: the store or the disk refused.
    """
    from skewless.training.scheduling.stop_signal import StopSignal

    ended: list[Run] = []
    jobs = PlannedJobs(project=project)
    chosen = _chosen(jobs(), only)
    stop_signal = StopSignal()
    with _alone(project, jobs, _here(project, invoke), stop_signal, ended.append) as term:
        for job in chosen:
            if not stop_signal.is_set:
                term.start(job, "asked for by hand")
                term.finish()
    return ended


def simulate(project: Workspace, until_us: int, invoke: Invoke | None = None) -> list[Run]:
    """Move the project's clock from tick to tick, and run what is due.

    Args:
        until_us: up to where, UTC microseconds.
        invoke: as ``once``.

    Raises:
        ConflictError: another scheduler is the holder.
        DefinitionError: the project's clock is the machine's.
        StoreError: the store or the disk refused.
    """
    from skewless.training.scheduling.stop_signal import StopSignal

    clock = project.clock
    if not isinstance(clock, OffsetClock):
        fix = "set clock to file:PATH, or leave --until away"
        raise DefinitionError("setting 'clock'", "is the machine's, which cannot be moved", fix=fix)
    ended: list[Run] = []
    jobs = PlannedJobs(project=project)
    stop_signal = StopSignal()
    with _alone(project, jobs, _here(project, invoke), stop_signal, ended.append) as term:
        _walk(term, clock, until_us, stop_signal)
    return ended


@contextmanager
def shift_here(project: Workspace, invoke: Invoke, on_end: Callable[[Run], None]) -> Iterator[LeaderTerm]:
    """Hold the lease for somebody who moves the clock and asks for each step; jobs run in this process.

    Args:
        on_end: told of every run that has ended.

    Raises:
        ConflictError: another scheduler is the holder.
        StoreError: the store or the disk refused.
    """
    from skewless.training.scheduling.stop_signal import StopSignal

    jobs = PlannedJobs(project=project)
    with _alone(project, jobs, _here(project, invoke), StopSignal(), on_end) as term:
        yield term


def _walk(term: LeaderTerm, clock: OffsetClock, until_us: int, stop_signal: StopSignal) -> None:
    while not stop_signal.is_set:
        while term.step() and not stop_signal.is_set:
            pass
        moment = term.next_us()
        if moment is None or moment > until_us:
            clock.set(max(until_us, clock.now_us()))
            return
        clock.set(max(moment, clock.now_us()))


def _chosen(jobs: list[Job], only: Sequence[str]) -> list[Job]:
    from skewless.training.scheduling.job import find_job

    if not only:
        return [job for job in jobs if job.schedule is not None and job.has_work()]
    kinds = {job.name.partition(" ")[0] for job in jobs}
    for name in only:
        if name not in kinds:
            find_job(jobs, name)
    return [job for job in jobs if {job.name, job.name.partition(" ")[0]} & set(only)]


@contextmanager
def _alone(
    project: Workspace, jobs: PlannedJobs, launch: Launch, stop_signal: StopSignal, on_end: Callable[[Run], None]
) -> Iterator[LeaderTerm]:
    with (
        stop_signal.handle_signals(),
        _candidate(project, jobs, launch, stop_signal, on_end) as candidate,
        candidate.alone() as term,
    ):
        yield term


@contextmanager
def _candidate(
    project: Workspace, jobs: PlannedJobs, launch: Launch, stop_signal: StopSignal, on_end: Callable[[Run], None]
) -> Iterator[Candidate]:
    from skewless.infra.jobs.ledger import Ledger
    from skewless.infra.jobs.requests import Requests
    from skewless.infra.online.store import open_lease
    from skewless.training.scheduling.candidate import Candidate
    from skewless.training.scheduling.leader_term import LeaderTerm

    ledger = Ledger(project.state)

    def start_term(token: int) -> LeaderTerm:
        return LeaderTerm(
            ledger=ledger,
            requests=Requests(project.state),
            launch=launch,
            clock=project.clock,
            token=token,
            jobs=jobs,
            inputs=jobs.inputs,
            on_end=on_end,
        )

    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    ttl_s = project.settings.scheduler_lease_seconds
    with closing(open_lease(project.redis_url, project.applied.plan.project, holder, ttl_s)) as lease:
        yield Candidate(lease=lease, ledger=ledger, clock=project.clock, start_term=start_term, stop_signal=stop_signal)


def _processes(project: Workspace) -> Launch:
    """Return what runs a verb in processes of its own."""
    from skewless.infra.jobs.execution import ProcessExecution

    environment = _environment(project)

    def launch(run: Run, words: Sequence[str]) -> Execution:
        return ProcessExecution(
            [*_PROGRAM, *_said(project, words)],
            environment=environment | {_RUN: str(run.id), _TOKEN: str(run.token)},
            silence_s=project.settings.scheduler_lease_seconds * _SILENT_SHARE,
            stdout=tempfile.TemporaryFile(),
        )

    return launch


def _environment(project: Workspace) -> dict[str, str]:
    settings = project.settings
    named = {"SKEWLESS_STATE": settings.state, "SKEWLESS_CLOCK": settings.clock}
    named |= {"SKEWLESS_REDIS_URL": settings.redis_url} if settings.redis_url else {}
    named |= {"SKEWLESS_STREAM_URL": settings.stream_url} if settings.stream_url else {}
    # `import feast` sets these for itself; a child that inherits them would write its metrics there.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}
    return kept | named


def _here(project: Workspace, invoke: Invoke | None) -> Launch:
    """Return what runs a verb at once: by ``invoke``, or in a process that it waits for."""
    from skewless.infra.jobs.execution import CompletedExecution, Completion, decode_outputs

    def launch(_run: Run, words: Sequence[str]) -> Execution:
        code, text = (invoke or partial(_wait_for, _environment(project)))(_said(project, words))
        return CompletedExecution(completion=Completion(code=code, outputs=decode_outputs(text.encode())))

    return launch


def _wait_for(environment: Mapping[str, str], words: Sequence[str]) -> tuple[int, str]:
    ended = subprocess.run([*_PROGRAM, *words], stdout=subprocess.PIPE, env=environment, check=False)  # noqa: S603 - ours
    return ended.returncode, ended.stdout.decode()


def _said(project: Workspace, words: Sequence[str]) -> list[str]:
    return [*words, "--repo", str(project.repo), "--json"]
