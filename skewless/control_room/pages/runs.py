"""What ran, runs, and will run: a day of the scheduler, its jobs, and each run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

from skewless.contract.clock import from_us, to_us
from skewless.contract.errors import RequestError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import count_text
from skewless.control_room.page import Page, Part, Query, read_part
from skewless.control_room.plots import Span
from skewless.control_room.render import to_url
from skewless.infra.jobs.ledger import Ledger, Requests
from skewless.infra.jobs.run import RunId, RunSpan
from skewless.infra.plans.applied_plan import read_plan_number
from skewless.infra.storage.leases import Leases
from skewless.operations.rollout import needs_step
from skewless.project import Project
from skewless.training.scheduling.job import Job, latest_tick, list_jobs

_DAY_US = 86_400_000_000
_MOST_SPANS = 5_000  # runs of a day that the timeline reads
_MOST_LANES = 24  # with more jobs, a lane has all jobs of a kind
_MOST_RUNS, _MOST_JOBS, _MOST_OPEN = 50, 50, 50
_SLOT_US = _DAY_US // 288  # runs of one lane and result that are closer are one bar
_MOST_BODY = 20_000  # characters of inputs or outputs
_LATE_US = 60_000_000  # a due tick that has not started after this time is overdue
_STATES = ("running", "done", "failed", "refused", "cancelled", "lost")
_KINDS = {
    "running": "unknown",
    "done": "good",
    "failed": "bad",
    "lost": "bad",
    "refused": "warning",
    "cancelled": "plain",
}
# The worst is drawn last, so that nothing hides it.
_ORDER = ("good", "plain", "unknown", "warning", "bad")


@dataclass(frozen=True, kw_only=True)
class RunRow(PlainRecord):
    """A run in a list.

    Args:
        kind: colour of its state.
        seconds: its duration; None: it runs.
        error: its beginning.
    """

    id: str
    job: str
    state: str
    kind: str
    cause: str
    due_us: int
    started_us: int
    seconds: float | None
    error: str | None

    @classmethod
    def of(cls, run: RunSpan) -> RunRow:
        """Return the row of a run."""
        seconds = None if run.ended_us is None else (run.ended_us - run.started_us) / 1e6
        return cls(
            id=str(run.id),
            job=run.id.job,
            state=run.state,
            kind=_KINDS[run.state],
            cause=run.cause,
            due_us=run.id.tick_us,
            started_us=run.started_us,
            seconds=seconds,
            error=run.error,
        )


@dataclass(frozen=True, kw_only=True)
class Day(PlainRecord):
    """The runs that were due on a day.

    Args:
        counts: runs by state.
        lanes: per lane its name, and its bars.
        read: runs that the lanes are made of; ``is_cut``: these are the latest, and the day had more.
        left_out: jobs or kinds without a lane, because there are too many.
        by_kind: whether a lane has all jobs of a kind.
    """

    since_us: int
    until_us: int
    counts: Mapping[str, int]
    lanes: Sequence[tuple[str, Sequence[Span]]]
    read: int
    is_cut: bool
    left_out: int
    by_kind: bool


@dataclass(frozen=True, kw_only=True)
class RunList(PlainRecord):
    """Runs, latest first.

    Args:
        before: id of the last run, from which the next page goes on; empty: there is no other page.
    """

    runs: Sequence[RunRow]
    before: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRow(PlainRecord):
    """A job of the applied plan.

    Args:
        command: what it runs.
        next_us: its next tick; None: it runs only on request, or has no work now.
        overdue_us: a tick that is due and has not started; None: there is none.
    """

    job: str
    command: str
    last: RunRow | None
    next_us: int | None
    overdue_us: int | None


@dataclass(frozen=True, kw_only=True)
class JobList(PlainRecord):
    """Jobs by name.

    Args:
        total: of all pages.
        after: name of the last job, from which the next page goes on; empty: there is no other page.
        leader: holder of the scheduler's lease; empty: none leads, so nothing starts.
        requested: ids of runs that wait for their start, or for their end.
    """

    jobs: Sequence[JobRow]
    total: int
    after: str
    leader: str
    requested: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class RunsOfDay(PlainRecord):
    """The page.

    Args:
        at_us: now, by the project's clock.
        day: in ISO 8601; ``previous`` and ``next`` are its neighbours.
        state, job, kind: what the list shows; empty: all.
    """

    at_us: int
    day: str
    previous: str
    next: str
    is_today: bool
    state: str
    job: str
    kind: str
    states: Sequence[str]
    running: Part[Sequence[RunRow]]
    timeline: Part[Day]
    runs: Part[RunList]
    jobs: Part[JobList]


def read_runs(project: Project, query: Query) -> RunsOfDay:
    """Return the runs of a day, and the jobs with their next ticks."""
    now_us, ledger = project.clock.now_us(), Ledger(project.state)
    today = from_us(now_us).date()
    day = _read_day(query.text("day", today.isoformat()))
    since_us = to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))
    state, job, kind = query.choice("state", ("", *_STATES)), query.text("job"), query.text("kind")
    before = RunId.parse(query.text("before")) if query.text("before") else None
    view = _View(query=query, job=job, kind=kind, since_us=since_us, day=day.isoformat(), now_us=now_us)
    return RunsOfDay(
        at_us=now_us,
        day=day.isoformat(),
        previous=_shift(day, -1),
        next=_shift(day, 1),
        is_today=day == today,
        state=state,
        job=job,
        kind=kind,
        states=_STATES,
        running=read_part(lambda: [RunRow.of(run) for run in ledger.read_open(_MOST_OPEN) if view.may_see(run.id.job)]),
        timeline=read_part(lambda: view.read_timeline(ledger)),
        runs=read_part(lambda: view.read_list(ledger, state, before)),
        jobs=read_part(lambda: _read_jobs(project, ledger, query, view)),
    )


@dataclass(frozen=True, kw_only=True)
class _View:
    """Which runs a reader wants to see, and may see."""

    query: Query
    job: str
    kind: str
    since_us: int
    day: str
    now_us: int

    def may_see(self, job: str) -> bool:
        """Return whether the reader may see a job."""
        return may_see(self.query, job)

    def read_timeline(self, ledger: Ledger) -> Day:
        """Return the day by lanes."""
        until_us = self.since_us + _DAY_US
        spans = ledger.read_spans(
            self.since_us, until_us, job=self.job or None, kind=self.kind or None, limit=_MOST_SPANS
        )
        shown = [run for run in spans if self.may_see(run.id.job)]
        jobs = sorted({run.id.job for run in shown})
        by_kind = len(jobs) > _MOST_LANES and not self.kind
        lanes: dict[str, list[RunSpan]] = {}
        for run in reversed(shown):
            lanes.setdefault(run.id.job.partition(" ")[0] if by_kind else run.id.job, []).append(run)
        names = sorted(lanes)
        counts: dict[str, int] = {}
        for run in shown:
            counts[run.state] = counts.get(run.state, 0) + 1
        return Day(
            since_us=self.since_us,
            until_us=until_us,
            counts={state: counts[state] for state in _STATES if state in counts},
            lanes=[(name, self._bars(name, lanes[name], by_kind=by_kind)) for name in names[:_MOST_LANES]],
            read=len(spans),
            is_cut=len(spans) == _MOST_SPANS,
            left_out=max(0, len(names) - _MOST_LANES),
            by_kind=by_kind,
        )

    def read_list(self, ledger: Ledger, state: str, before: RunId | None) -> RunList:
        """Return a page of the day's runs."""
        runs = ledger.read_spans(
            self.since_us,
            self.since_us + _DAY_US,
            job=self.job or None,
            kind=self.kind or None,
            state=state or None,
            before=before,
            limit=_MOST_RUNS + 1,
        )
        page = runs[:_MOST_RUNS]
        return RunList(
            runs=[RunRow.of(run) for run in page if self.may_see(run.id.job)],
            before=str(page[-1].id) if len(runs) > _MOST_RUNS else "",
        )

    def _bars(self, name: str, runs: Iterable[RunSpan], *, by_kind: bool) -> list[Span]:
        """Return bars of runs, which are in the order of their ticks; close runs with one result are one bar."""
        groups: list[list[RunSpan]] = []
        for run in runs:
            last = groups[-1][-1] if groups else None
            is_close = last is not None and run.started_us - (last.ended_us or run.started_us) < _SLOT_US
            if last is not None and is_close and _KINDS[last.state] == _KINDS[run.state]:
                groups[-1].append(run)
            else:
                groups.append([run])
        chosen = {"kind": name} if by_kind else {"job": name}
        bars = [self._bar(name, group, to_url("/runs", day=self.day, **chosen)) for group in groups]
        return sorted(bars, key=lambda bar: (_ORDER.index(bar.kind), bar.since_us))

    def _bar(self, name: str, runs: Sequence[RunSpan], link: str) -> Span:
        first, last = runs[0], runs[-1]
        start, end = (f"{from_us(us):%H:%M:%S}" for us in (first.started_us, last.ended_us or last.started_us))
        if len(runs) == 1:
            link, what = to_url(f"/runs/{first.id}"), first.id.job
        else:
            what = f"{count_text(len(runs), 'run')} of {name}"
        until = "now" if last.ended_us is None else end
        return Span(
            since_us=first.started_us,
            until_us=self.now_us if last.ended_us is None else last.ended_us,
            kind=_KINDS[first.state],
            text=f"{what}: {first.state}, {start} to {until}",
            link=link,
        )


def _read_jobs(project: Project, ledger: Ledger, query: Query, view: _View) -> JobList:
    jobs = {job.name: job for job in planned_jobs(project) if view.may_see(job.name)}
    names = sorted(name for name in jobs if name > query.text("after"))
    leader = Leases(project.state.database).read_holder("scheduler")
    requested = [request for request in Requests(project.state).open() if view.may_see(request.run_id.job)]
    return JobList(
        jobs=[_read_job(ledger, jobs[name], project.clock.now_us()) for name in names[:_MOST_JOBS]],
        total=len(jobs),
        after=names[_MOST_JOBS - 1] if len(names) > _MOST_JOBS else "",
        leader=" ".join((leader or "").split("/")[0:3:2]),
        requested=[f"{request.kind} {request.run_id}" for request in requested[:_MOST_OPEN]],
    )


def planned_jobs(project: Project) -> list[Job]:
    """Return the jobs of the applied plan; empty: no plan is applied."""
    if not read_plan_number(project.state):
        return []
    return list_jobs(project.settings, project.models, partial(needs_step, project))


def _read_job(ledger: Ledger, job: Job, now_us: int) -> JobRow:
    last = ledger.latest_span(job.name)
    next_us = overdue_us = None
    if job.schedule is not None and job.has_work():
        next_us = job.schedule.next(now_us)
        if last is not None:  # before its first run, the scheduler decides from when on ticks count
            overdue_us = latest_tick(job.schedule, last.id.tick_us, now_us - _LATE_US)
    return JobRow(
        job=job.name,
        command=" ".join(["skewless", *map(shlex.quote, job.words)]),
        last=None if last is None else RunRow.of(last),
        next_us=next_us,
        overdue_us=overdue_us,
    )


def may_see(query: Query, job: str) -> bool:
    """Return whether a reader may see a job: it has no model, or one of theirs."""
    model = job.partition(" ")[2]
    return query.models is None or not model or model in query.models


def _read_day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
        to_us(datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=2))
    except (ValueError, OverflowError) as error:
        raise RequestError("day", "is not a date", value=text, fix="write it like 2026-01-15") from error
    return day


def _shift(day: date, days: int) -> str:
    try:
        return (day + timedelta(days=days)).isoformat()
    except OverflowError:
        return day.isoformat()


PAGE = Page(
    path="/runs", question="What ran, runs, will run?", template="runs.html", read=read_runs, menu="Runs", live_s=3
)
