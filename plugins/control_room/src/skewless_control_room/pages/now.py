"""The first page: is anything wrong now?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from skewless.contract.errors import RequestError, StoreError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import count_text, shorten
from skewless.infra.definitions.plans.applied_plan import AppliedPlan, read_applied
from skewless.infra.log.catalog import Catalog
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.health.checkup.deep import check_disk_share, check_leases, check_spool
from skewless.operations.health.checkup.project import judge_plan, judge_processes
from skewless.operations.health.finding import CheckFinding, bad, run_check, unknown
from skewless.operations.health.status import (
    OnlineStatus,
    PlanStatus,
    ProcessStatus,
    open_online,
    plan_status,
    running_processes,
)
from skewless.project import Project
from skewless_control_room.actions import Action, Values
from skewless_control_room.alerts_and_jobs import check_alerts, check_jobs
from skewless_control_room.database_state import DatabaseState, ask_database
from skewless_control_room.inquiry import Inquiry
from skewless_control_room.page import Known, Page, Part, Query, Unknown, read_part
from skewless_control_room.unknowns import find_unknown_models, find_unknown_replays, find_unknown_views

Kind = Literal["good", "warning", "bad", "unknown"]
_CAUSE_CHARS = 160
_WAIT_S = 0.5
_DOCTOR = "skewless doctor --deep"
_MOST_TROUBLES, _MOST_GAPS, _MOST_PROCESSES = 100, 100, 100


@dataclass(frozen=True, kw_only=True)
class Sentence(PlainRecord):
    """The answer in one sentence.

    Args:
        kind: its colour: ``good`` only if nothing is wrong and everything is known.
    """

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Shown(PlainRecord):
    """The head of a list, and the length of the whole.

    Args:
        items: records.
    """

    items: Sequence[PlainRecord]
    total: int


@dataclass(frozen=True, kw_only=True)
class PlanState(PlainRecord):
    """The applied plan, and how much it has.

    Args:
        plan: None: no plan is applied.
        age_s: seconds since the apply.
        predictions: in the log; those in the spools of machines are not counted.
    """

    plan: PlanStatus | None
    age_s: float | None = None
    views: int = 0
    models: int = 0
    predictions: int = 0


@dataclass(frozen=True, kw_only=True)
class StoreState(PlainRecord):
    """The online store.

    Args:
        answer_ms: time to connect and to ask for its state; None: it did not answer.
        is_needed: whether a server or a stream worker lives, which need it.
    """

    online: OnlineStatus
    answer_ms: float | None
    is_needed: bool


@dataclass(frozen=True, kw_only=True)
class ProcessRow(PlainRecord):
    """A process of the project.

    Args:
        runs_plan: whether it has loaded the applied plan; None: unknown, or no plan is applied.
        age_s: seconds since its start, by the clock of its machine.
        does: what it says about its work.
    """

    process: ProcessStatus
    runs_plan: bool | None
    age_s: float
    does: str


@dataclass(frozen=True, kw_only=True)
class Now(PlainRecord):
    """The answer.

    Args:
        at_us: now, by the project's clock, microseconds.
        troubles: what is wrong: open alerts oldest first, then processes, jobs, and this machine.
        gaps: the unknown, and parts that could not be read.
    """

    at_us: int
    sentence: Sentence
    troubles: Shown
    gaps: Shown
    processes: Part[Shown]
    database: Part[DatabaseState]
    store: Part[StoreState]
    plan: Part[PlanState]


def read_now(project: Project, query: Query) -> Now:
    """Return what is wrong with a project now, and the gaps of this knowledge."""
    database = read_part(lambda: ask_database(project))
    # One wait for a database that is down is enough: the other parts do not ask it again.
    away = database if isinstance(database, Unknown) else None
    applied = away or read_part(lambda: read_applied(project.state))
    definitions = applied.value if isinstance(applied, Known) else None
    processes = away or read_part(lambda: _read_processes(project, definitions))
    plan = applied if isinstance(applied, Unknown) else read_part(lambda: _read_plan(project, applied.value))
    store = read_part(lambda: _ask_store(project, processes))
    findings = [
        *_judge_places(database, store),
        *run_check("disk and definitions", lambda: _check_place(project, definitions)),
        *([] if away else _check_database(project, plan, definitions, query.models)),
    ]
    findings = [item for item in findings if _may_see(item, query.models)]
    gaps = [item for item in findings if item.verdict == "unknown"]
    alerts = [item for item in findings if item.alert is not None]
    # An alert about a process has a time; its heartbeat alone would repeat it.
    known = {item.name for item in alerts}
    troubles = alerts + [
        item for item in findings if item.verdict in {"warn", "fail"} and item.alert is None and item.name not in known
    ]
    return Now(
        at_us=project.clock.now_us(),
        sentence=_answer(troubles, gaps),
        troubles=Shown(items=troubles[:_MOST_TROUBLES], total=len(troubles)),
        gaps=Shown(items=gaps[:_MOST_GAPS], total=len(gaps)),
        processes=processes
        if isinstance(processes, Unknown)
        else Known(value=Shown(items=processes.value[:_MOST_PROCESSES], total=len(processes.value))),
        database=database,
        store=store,
        plan=plan,
    )


def _may_see(finding: CheckFinding, models: frozenset[str] | None) -> bool:
    return models is None or not finding.models or not models.isdisjoint(finding.models)


def _judge_places(database: Part[DatabaseState], store: Part[StoreState]) -> Iterator[CheckFinding]:
    """Yield that the database or the online store is down."""
    if isinstance(database, Unknown):
        yield bad("database", database.unknown.partition(": ")[2], _DOCTOR, section="databasedown")
        yield unknown("alerts, processes, jobs and checks", "the database does not answer", _DOCTOR)
    if isinstance(store, Unknown):
        yield unknown("online store", store.unknown, _DOCTOR)
    elif not store.value.online.reachable:
        reason = store.value.online.reason or "does not answer"
        if store.value.is_needed:
            yield bad("online store", reason, _DOCTOR, section="storedown")
        else:
            yield unknown("online values", reason, _DOCTOR)


def _check_place(project: Project, applied: AppliedPlan | None) -> Iterator[CheckFinding]:
    """Yield the findings about this machine, and about the definitions in it."""
    yield check_spool(project.state)
    yield check_disk_share(project.state.folder)
    if applied is not None:
        yield judge_plan(project.repo, project.state, applied)


def _check_database(
    project: Project, plan: Part[PlanState], applied: AppliedPlan | None, models: frozenset[str] | None
) -> Iterator[CheckFinding]:
    """Yield the findings that need the database; what the checks of a project have not found out is unknown."""
    now_us = project.clock.now_us()
    checks: dict[str, Callable[[], Iterable[CheckFinding]]] = {
        "processes": lambda: [*judge_processes(project.state, applied, now_us=now_us), *check_leases(project.state)],
        "jobs": lambda: check_jobs(project),
        "alerts": lambda: check_alerts(project),
    }
    if isinstance(plan, Known) and plan.value.plan is None:
        yield unknown("plan", "no plan is applied, so there is nothing to check", "skewless apply")
    else:
        checks |= {
            "parity and freshness": lambda: find_unknown_views(project),
            "replay": lambda: find_unknown_replays(project),
            "quality and drift": lambda: find_unknown_models(project, models),
        }
    for name, check in checks.items():
        yield from run_check(name, check)


def _answer(troubles: Sequence[CheckFinding], gaps: Sequence[CheckFinding]) -> Sentence:
    """Return the answer; "nothing is wrong" only if everything is known."""
    unknown = f"{count_text(len(gaps), 'thing')} {'is' if len(gaps) == 1 else 'are'} not known"
    rest = f"; {unknown}" if gaps else ""
    if troubles:
        first, n = min(troubles, key=lambda item: not item.is_critical), len(troubles)
        is_bad = first.is_critical
        more = f", and {count_text(n - 1, 'other thing')}" if n > 1 else ""
        start = "Yes" if is_bad else "Perhaps"
        return Sentence(
            kind="bad" if is_bad else "warning",
            text=f"{start}: {first.name}: {shorten(first.detail, _CAUSE_CHARS)}{more}{rest}.",
        )
    if gaps:
        return Sentence(kind="unknown", text=f"Nothing is known to be wrong, but {unknown}.")
    return Sentence(kind="good", text="No: nothing is wrong, and every check is recent.")


def _ask_store(project: Project, processes: Part[list[ProcessRow]]) -> StoreState:
    try:
        online, answer_ms = _store_inquiry(project.state.folder).ask(lambda: _open_store(project))
    except StoreError as error:
        online, answer_ms = OnlineStatus(reachable=False, url=None, reason=error.problem), None
    rows = [] if isinstance(processes, Unknown) else processes.value
    lives = any(row.process.lives and row.process.kind != "scheduler" for row in rows)
    return StoreState(online=online, answer_ms=answer_ms, is_needed=lives or project.settings.redis_url is not None)


@cache
def _store_inquiry(_: Path) -> Inquiry[tuple[OnlineStatus, float | None]]:
    """Return the question to the online store of a state folder, which the threads of all pages share."""
    return Inquiry("online store", _WAIT_S)


def _open_store(project: Project) -> tuple[OnlineStatus, float | None]:
    started = time.perf_counter()
    with open_online(project) as (online, _):
        return online, round((time.perf_counter() - started) * 1e3, 1) if online.reachable else None


def _read_plan(project: Project, applied: AppliedPlan | None) -> PlanState:
    if applied is None:
        return PlanState(plan=None)
    return PlanState(
        plan=plan_status(project, applied),
        age_s=(project.clock.now_us() - applied.applied_us) / 1e6,
        views=len(applied.plan.all_views),
        models=len(applied.models),
        predictions=Catalog(project.state.database).count_rows(PREDICTIONS),
    )


def _read_processes(project: Project, applied: AppliedPlan | None) -> list[ProcessRow]:
    return [
        ProcessRow(
            process=item,
            runs_plan=None if applied is None or item.plan is None else item.plan == applied.plan.hash,
            age_s=max(0.0, time.time() - datetime.fromisoformat(item.started_at).timestamp()),
            does=_describe(item),
        )
        for item in running_processes(project.state)
    ]


def _describe(item: ProcessStatus) -> str:
    detail = item.detail
    if item.kind == "scheduler":
        return "leads" if detail.get("holds_the_lease") else "waits for the lease"
    if item.kind == "server":
        models = detail.get("models") or {}
        return "serves " + (", ".join(f"{name} {version}" for name, version in models.items()) or "no model")
    lags = [f"{source.get('source')}: {source.get('lag')} events wait" for source in detail.get("sources") or ()]
    return "; ".join(lags) or "has no source"


def _preview_resolve(project: Project, values: Values) -> list[str]:
    record = next((item for item in project.alerts() if str(item.number) == values["number"]), None)
    if record is None:
        raise RequestError("alert", "is not open", value=values["number"], fix="go back to the list of alerts")
    return [
        f"Alert {record.number} is resolved: {record.alert.name} of {record.alert.subject}: {record.alert.message}.",
        "It opens again if its check still finds the cause.",
    ]


def _resolve(project: Project, values: Values) -> str:
    _preview_resolve(project, values)
    project.alerts(resolve=int(values["number"]))
    return f"Alert {values['number']} is resolved."


PAGE = Page(path="/", question="Is anything wrong now?", template="now.html", read=read_now, menu="Now", live_s=3)
ACTIONS = (
    Action(
        name="resolve-alert",
        title="Resolve",
        right="operate",
        fields=("number",),
        preview=_preview_resolve,
        run=_resolve,
        command="skewless alerts --resolve {number}",
    ),
)
