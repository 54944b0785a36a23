"""A day of the scheduler: its runs by job, and the next ticks of its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from skewless.contract.clock import from_us, to_us
from skewless.contract.errors import RequestError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import count_text
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import RunId, RunSpan
from skewless.project import Project
from skewless_control_room.database_state import ask_database
from skewless_control_room.page import Page, Part, Query, Unknown, read_part
from skewless_control_room.pages.jobs import KINDS, JobList, RunRow, may_see, read_jobs
from skewless_control_room.plots import Span
from skewless_control_room.render import to_url

_DAY_US = 86_400_000_000
_MOST_SPANS = 5_000  # runs of a day that the timeline reads
_MOST_LANES = 24  # with more jobs, a lane has all jobs of a kind
_MOST_RUNS, _MOST_OPEN = 50, 50
_SLOT_US = _DAY_US // 288  # runs of one lane and result that are closer are one bar
_STATES = ("running", "done", "failed", "refused", "cancelled", "lost")
# The worst is drawn last, so that nothing hides it.
_ORDER = ("good", "plain", "unknown", "warning", "bad")


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
        before: id of the last run, from which the next page continues; empty: there is no other page.
    """

    runs: Sequence[RunRow]
    before: str = ""


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
    database = read_part(lambda: ask_database(project))
    # One wait for a database that is down is enough: the parts do not ask it again.
    away = database if isinstance(database, Unknown) else None
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
        running=away or read_part(lambda: view.read_open(ledger)),
        timeline=away or read_part(lambda: view.read_timeline(ledger)),
        runs=away or read_part(lambda: view.read_list(ledger, state, before)),
        jobs=away or read_part(lambda: read_jobs(project, ledger, query)),
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

    def read_open(self, ledger: Ledger) -> list[RunRow]:
        """Return the runs in progress."""
        return [RunRow.of(run) for run in ledger.read_open(_MOST_OPEN) if may_see(self.query, run.id.job)]

    def read_timeline(self, ledger: Ledger) -> Day:
        """Return the day by lanes."""
        until_us = self.since_us + _DAY_US
        spans = ledger.read_spans(
            self.since_us, until_us, job=self.job or None, kind=self.kind or None, limit=_MOST_SPANS
        )
        shown = [run for run in spans if may_see(self.query, run.id.job)]
        jobs = sorted({run.id.job for run in shown})
        by_kind = len(jobs) > _MOST_LANES and not self.kind
        lanes: dict[str, list[RunSpan]] = {}
        for run in reversed(shown):
            lanes.setdefault(run.id.job.partition(" ")[0] if by_kind else run.id.job, []).append(run)
        names = sorted(lanes)
        counts: Counter[str] = Counter(run.state for run in shown)
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
            runs=[RunRow.of(run) for run in page if may_see(self.query, run.id.job)],
            before=str(page[-1].id) if len(runs) > _MOST_RUNS else "",
        )

    def _bars(self, name: str, runs: Iterable[RunSpan], *, by_kind: bool) -> list[Span]:
        """Return bars of runs, which are in the order of their ticks; close runs with one result are one bar."""
        groups: list[list[RunSpan]] = []
        for run in runs:
            last = groups[-1][-1] if groups else None
            is_close = last is not None and run.started_us - (last.ended_us or run.started_us) < _SLOT_US
            if last is not None and is_close and KINDS[last.state] == KINDS[run.state]:
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
            kind=KINDS[first.state],
            text=f"{what}: {first.state}, {start} to {until}",
            link=link,
        )


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
