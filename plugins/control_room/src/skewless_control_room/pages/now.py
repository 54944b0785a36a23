"""The first page: is anything wrong now?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from skewless.operations.health.gaps import Gap, read_model_gaps, read_replay_gaps, read_view_gaps
from skewless.operations.health.status import (
    OnlineStatus,
    PlanStatus,
    ProcessStatus,
    open_online,
    plan_status,
    running_processes,
)
from skewless.operations.health.troubles import (
    Trouble,
    read_alert_troubles,
    read_failed_jobs,
    read_place_troubles,
    read_process_troubles,
)
from skewless.project import Project
from skewless_control_room.actions import Action, Values
from skewless_control_room.database_state import DatabaseState, ask_database
from skewless_control_room.inquiry import Inquiry
from skewless_control_room.page import Known, Page, Part, Query, Unknown, read_part

Kind = Literal["good", "warning", "bad", "unknown"]
_CAUSE_CHARS = 160
_WAIT_S = 0.5
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
    findings = _Findings(models=query.models)
    findings.add_place(database, store)
    findings.add_troubles("disk and definitions", lambda: read_place_troubles(project, definitions))
    if away is None:
        findings.add_troubles("processes", lambda: read_process_troubles(project, definitions))
        findings.add_troubles("jobs", lambda: read_failed_jobs(project))
        findings.add_troubles("alerts", lambda: read_alert_troubles(project))
        findings.add_checks(project, plan)
    troubles, gaps = findings.sorted_troubles(), findings.gaps
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


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """Collects what is wrong, and the gaps; a part that cannot be read is a gap.

    Args:
        models: the only models that the reader may see; None: all.
    """

    models: frozenset[str] | None
    troubles: list[Trouble] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def add_place(self, database: Part[DatabaseState], store: Part[StoreState]) -> None:
        """Add that the database or the online store is down."""
        if isinstance(database, Unknown):
            self.troubles.append(_store_trouble("database", database.unknown.partition(": ")[2], "databasedown"))
            reason = "the database does not answer"
            gap = Gap(subject="alerts, processes, jobs and checks", reason=reason, next="skewless doctor --deep")
            self.gaps.append(gap)
        if isinstance(store, Unknown):
            self.gaps.append(Gap(subject="online store", reason=store.unknown, next="skewless doctor --deep"))
        elif not store.value.online.reachable:
            reason = store.value.online.reason or "does not answer"
            if store.value.is_needed:
                self.troubles.append(_store_trouble("online store", reason, "storedown"))
            else:
                self.gaps.append(Gap(subject="online values", reason=reason, next="skewless doctor --deep"))

    def add_troubles(self, subject: str, read: Callable[[], list[Trouble]]) -> None:
        """Add troubles."""
        part = read_part(read)
        if isinstance(part, Unknown):
            self.gaps.append(Gap(subject=subject, reason=part.unknown, next=part.fix))
        else:
            self.troubles.extend(item for item in part.value if self._may_see(item.model))

    def add_checks(self, project: Project, plan: Part[PlanState]) -> None:
        """Add what the checks of the project have not found out."""
        if isinstance(plan, Known) and plan.value.plan is None:
            reason = "no plan is applied, so there is nothing to check"
            self.gaps.append(Gap(subject="plan", reason=reason, next="skewless apply"))
            return
        readers: dict[str, Callable[[], list[Gap]]] = {
            "parity and freshness": lambda: read_view_gaps(project),
            "replay": lambda: read_replay_gaps(project),
            "quality and drift": lambda: read_model_gaps(project, self.models),
        }
        for subject, read in readers.items():
            part = read_part(read)
            unread = Gap(subject=subject, reason=part.unknown, next=part.fix) if isinstance(part, Unknown) else None
            self.gaps.extend([unread] if unread else part.value if isinstance(part, Known) else [])

    def sorted_troubles(self) -> list[Trouble]:
        """Return alerts, oldest first, then the rest in the order in which it was added."""
        alerts = [item for item in self.troubles if item.alert is not None]
        known = {item.subject for item in alerts}
        # An alert about a process says since when; its heartbeat alone would repeat it.
        return alerts + [item for item in self.troubles if item.alert is None and item.subject not in known]

    def _may_see(self, model: str) -> bool:
        return self.models is None or not model or model in self.models


def _store_trouble(subject: str, cause: str, section: str) -> Trouble:
    runbook = f"docs/runbooks.md#skewless{section}"
    command = "skewless doctor --deep"
    return Trouble(weight="critical", subject=subject, cause=cause, since_us=None, next=command, runbook=runbook)


def _answer(troubles: Sequence[Trouble], gaps: Sequence[Gap]) -> Sentence:
    """Return the answer; "nothing is wrong" only if everything is known."""
    unknown = f"{count_text(len(gaps), 'thing')} {'is' if len(gaps) == 1 else 'are'} not known"
    rest = f"; {unknown}" if gaps else ""
    if troubles:
        first, n = min(troubles, key=lambda item: item.weight != "critical"), len(troubles)
        is_bad = first.weight == "critical"
        more = f", and {count_text(n - 1, 'other thing')}" if n > 1 else ""
        start = "Yes" if is_bad else "Perhaps"
        return Sentence(
            kind="bad" if is_bad else "warning",
            text=f"{start}: {first.subject}: {shorten(first.cause, _CAUSE_CHARS)}{more}{rest}.",
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
