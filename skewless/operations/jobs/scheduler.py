"""The scheduler of a project: on wall time, one round now, or over a period on a clock that it moves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import DefinitionError, SkewlessError, StoreError
from skewless.infra.definitions.plans.applied_plan import AppliedPlanReader, read_plan_number
from skewless.infra.platform.host.metrics import serve_metrics
from skewless.infra.platform.host.plugins import require_plugin
from skewless.infra.platform.host.processes import ProcessRecord, send_heartbeats
from skewless.infra.platform.jobs.execution import Completion, Execution, Launch, ProcessExecution, decode_outputs
from skewless.infra.platform.jobs.ledger import Ledger, Requests
from skewless.infra.platform.jobs.metrics import RunMetrics
from skewless.infra.platform.jobs.run import Run
from skewless.infra.platform.jobs.traces import RunTraces, open_run_traces
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.telemetry.logger import LEVEL_VARIABLE, EventLogger
from skewless.infra.platform.telemetry.port import report_metrics
from skewless.operations import BY_HAND
from skewless.operations.audited import record_settings
from skewless.operations.models.rollout import needs_step
from skewless.training.scheduling.candidate import Candidate, StopSignal
from skewless.training.scheduling.job import Job, find_job, list_jobs
from skewless.training.scheduling.leader_term import LeaderTerm
from skewless.workspace import Workspace

Invoke = Callable[[Sequence[str]], tuple[int, str]]
_log = EventLogger()
_PROGRAM = (sys.executable, "-m", "skewless.cli")
_RUN, _TOKEN = "SKEWLESS_RUN", "SKEWLESS_FENCING_TOKEN"
_ROOM_BEAT_S, _ROOM_SILENCE_S, _ROOM_RETRY_S = 1.0, 30.0, 5.0
_RETRY_S = 1.0
_SILENT_SHARE = 0.8  # of the lease: a job ends before another scheduler can hold it


@dataclass(kw_only=True)
class PlannedJobs:
    """The jobs of the applied plan; a newly applied plan replaces it, unless it is invalid."""

    project: Workspace
    _number: int = -1
    _problem: str = ""
    _definitions: str = ""
    _jobs: list[Job] = field(default_factory=list)

    def __call__(self) -> list[Job]:
        """Return the jobs; those of the last valid plan while a new one or the database cannot be read.

        Raises:
            SkewlessError: the first plan cannot be read.
        """
        try:
            self._read_changed()
            self._problem = ""
        except SkewlessError as error:
            if self._number < 0:
                raise
            # The next call tries again, but a problem is reported once.
            if error.sentence() != self._problem:
                self._problem = error.sentence()
                _log.error("plan_not_loaded", problem=self._problem)
        return self._jobs

    def inputs(self) -> dict[str, Any]:
        """Return the inputs of a run that the ledger records with its command."""
        return {"definitions": self._definitions}

    def _read_changed(self) -> None:
        number = read_plan_number(self.project.state)
        if number != self._number:
            self.project.refresh()
            in_rollout = partial(needs_step, self.project)
            self._jobs = list_jobs(self.project.settings, self.project.models, in_rollout)
            self._number, self._definitions = number, self.project.applied.definitions_sha256


def run_scheduler(project: Workspace) -> None:
    """Run each job in a process when it is due, until SIGINT or SIGTERM.

    The runs in progress then finish; a second signal ends them. While the database is unavailable, it waits.

    Raises:
        DefinitionError: a cron line is invalid.
        StalePlanError: no plan was applied yet.
    """
    jobs = PlannedJobs(project=project)
    counts = RunMetrics()
    port = project.settings.scheduler_metrics_port
    if port:
        serve_metrics(counts, project.settings.metrics_host, port, "scheduler_metrics_port")
    stop = StopSignal()
    record, plan = ProcessRecord(project.state, "scheduler"), AppliedPlanReader(project.state)
    with stop.handle_signals(), open_run_traces(str(project.state.folder)) as traces, report_metrics(counts.collect):
        _wait_for_plan(project, jobs, stop)

        def on_end(run: Run) -> None:
            counts.count(run)
            traces.record(run)

        candidate = _candidate(project, jobs, _launch_processes(project, traces), stop, on_end)
        counts.is_holder = lambda: candidate.is_holder
        heartbeats = send_heartbeats(record, plan.hash, lambda: {"holds_the_lease": candidate.is_holder})
        with heartbeats, _control_room(project):
            candidate.serve()


def _wait_for_plan(project: Workspace, jobs: PlannedJobs, stop: StopSignal) -> None:
    """Read the plan and record the settings; while the database is unavailable, wait and log why."""
    while not stop.is_set:
        try:
            names = [job.name for job in jobs()]
            record_settings(project)
        except StoreError as error:
            _log.warning("scheduler_not_started", error=str(error))
            stop.wait(_RETRY_S)
        else:
            _log.info("scheduler_started", jobs=names)
            return


@contextmanager
def _control_room(project: Workspace) -> Iterator[None]:
    """Keep the control room running in a process of its own, if the setting says so."""
    if not project.settings.ui_with_scheduler:
        yield
        return
    require_plugin("skewless.commands", "ui", "control-room")
    stop = threading.Event()

    def keep() -> None:
        while not stop.is_set():
            room = ProcessExecution(
                [*_PROGRAM, *_command_line(project, ["ui"])],
                environment=child_environment(project),
                silence_s=_ROOM_SILENCE_S,
                stdout=tempfile.TemporaryFile(),  # noqa: SIM115 - closed by poll, at its end
            )
            while (completion := room.poll()) is None and not stop.wait(_ROOM_BEAT_S):
                room.send_heartbeat()
            if completion is None:
                room.kill()
                room.poll()
            else:
                _log.error("control_room_ended", problem=completion.error)
                stop.wait(_ROOM_RETRY_S)

    thread = threading.Thread(target=keep, name="control room", daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join()


def run_once(project: Workspace, only: Sequence[str] = (), invoke: Invoke | None = None) -> list[Run]:
    """Run each job once, now; a signal ends the round after the current job.

    Args:
        invoke: runs a command in this process; None: each command runs in a new process.
        only: names of jobs, or their first words; empty: all jobs with a schedule.

    Raises:
        ConflictError: another scheduler holds the lease.
        RequestError: the project has no such job.
        StoreError: the database or the disk failed.
    """
    runs: list[Run] = []
    selected = _select(PlannedJobs(project=project)(), only)
    with hold_term(project, invoke, runs.append) as (term, stop):
        for job in selected:
            if not stop.is_set:
                term.start(job, BY_HAND)
                term.finish()
    return runs


def simulate(project: Workspace, until_us: int, invoke: Invoke | None = None) -> list[Run]:
    """Move the project's clock from tick to tick, and run the due jobs.

    Args:
        until_us: end of the period, UTC microseconds.
        invoke: as ``run_once``.

    Raises:
        ConflictError: another scheduler holds the lease.
        DefinitionError: the project's clock is the machine's.
        StoreError: the database or the disk failed.
    """
    clock = project.clock
    if not isinstance(clock, OffsetClock):
        fix = "set clock to file:PATH, or remove --until"
        raise DefinitionError("setting 'clock'", "is the machine's, which cannot be moved", fix=fix)
    runs: list[Run] = []
    with hold_term(project, invoke, runs.append) as (term, stop):
        _walk(term, clock, until_us, stop)
    return runs


@contextmanager
def hold_term(
    project: Workspace, invoke: Invoke | None, on_end: Callable[[Run], None]
) -> Iterator[tuple[LeaderTerm, StopSignal]]:
    """Hold the lease for a caller that requests each step; yield the term, and the signal that ends it.

    Args:
        invoke: runs a command in this process; None: each command runs in a new process.
        on_end: called with each run that has ended.

    Raises:
        ConflictError: another scheduler holds the lease.
        StoreError: the database or the disk failed.
    """
    stop = StopSignal()
    candidate = _candidate(project, PlannedJobs(project=project), _launch_here(project, invoke), stop, on_end)
    with stop.handle_signals(), candidate.alone() as term:
        yield term, stop


def _walk(term: LeaderTerm, clock: OffsetClock, until_us: int, stop: StopSignal) -> None:
    while not stop.is_set:
        while term.step() and not stop.is_set:
            pass
        next_us = term.next_us()
        if next_us is None or next_us > until_us:
            clock.set(max(until_us, clock.now_us()))
            return
        clock.set(max(next_us, clock.now_us()))


def _select(jobs: list[Job], only: Sequence[str]) -> list[Job]:
    if not only:
        return [job for job in jobs if job.schedule is not None and job.has_work()]
    kinds = {job.name.partition(" ")[0] for job in jobs}
    for name in only:
        if name not in kinds:
            find_job(jobs, name)
    return [job for job in jobs if {job.name, job.name.partition(" ")[0]} & set(only)]


def _candidate(
    project: Workspace, jobs: PlannedJobs, launch: Launch, stop: StopSignal, on_end: Callable[[Run], None]
) -> Candidate:
    ledger = Ledger(project.state)

    def open_term(token: int) -> LeaderTerm:
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

    leases = Leases(project.state.database, project.settings.scheduler_lease_seconds)
    return Candidate(leases=leases, ledger=ledger, clock=project.clock, start_term=open_term, stop_signal=stop)


def _launch_processes(project: Workspace, traces: RunTraces) -> Launch:
    """Return a launcher that runs each command in a process."""
    environment = child_environment(project)

    def launch(run: Run, words: Sequence[str]) -> Execution:
        return ProcessExecution(
            [*_PROGRAM, *_command_line(project, words)],
            environment=environment | {_RUN: str(run.id), _TOKEN: str(run.token)} | traces.variables(run),
            silence_s=project.settings.scheduler_lease_seconds * _SILENT_SHARE,
            stdout=tempfile.TemporaryFile(),
        )

    return launch


def child_environment(project: Workspace) -> dict[str, str]:
    """Return the environment of a process that works on the same project."""
    settings = project.settings
    variables = {"SKEWLESS_STATE": settings.state, "SKEWLESS_CLOCK": settings.clock}
    urls = {name: getattr(settings, name) for name in ("redis_url", "database_url", "storage_url", "stream_url")}
    variables |= {f"SKEWLESS_{name.upper()}": url for name, url in urls.items() if url}
    # `import feast` sets these; a child that inherits them would write its metrics to Feast's folder.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}
    # Jobs log as the scheduler does; alone, their commands would show warnings only.
    return {LEVEL_VARIABLE: "info"} | inherited | variables


def _launch_here(project: Workspace, invoke: Invoke | None) -> Launch:
    """Return a launcher that runs each command to its end: by ``invoke``, or in a process."""

    def launch(_run: Run, words: Sequence[str]) -> Execution:
        code, text = (invoke or partial(_wait_for, child_environment(project)))(_command_line(project, words))
        return Completion(code=code, outputs=decode_outputs(text.encode()))

    return launch


def _wait_for(environment: Mapping[str, str], words: Sequence[str]) -> tuple[int, str]:
    result = subprocess.run([*_PROGRAM, *words], stdout=subprocess.PIPE, env=environment, check=False)  # noqa: S603 - ours
    return result.returncode, result.stdout.decode()


def _command_line(project: Workspace, words: Sequence[str]) -> list[str]:
    return [*words, "--repo", str(project.repo), "--json"]
