"""The state of a project, read from its state folder and from its online store, if that is reachable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plain_record import JSON_ONLY, PlainRecord
from skewless.contract.plan import View
from skewless.contract.readable import iso_text
from skewless.infra.definitions.plans.applied_plan import (
    AppliedPlan,
    find_edited_files,
    read_applied,
    read_plan_number,
    read_registry_state,
)
from skewless.infra.definitions.plans.needed_views import CHAMPION, NeededViews
from skewless.infra.definitions.plans.retirement import ViewLifecycle, read_lifecycles
from skewless.infra.ingest.materialization.skipped_rows import SkippedRows, read_skipped
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import count_rejected
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.runs import RunLedger
from skewless.infra.models.packages.package import open_package
from skewless.infra.platform.host.processes import read_processes
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.redaction import display_url
from skewless.infra.reads.offline.views import DELAY_RUNS
from skewless.infra.reads.online.port import OnlineWriter
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.store import open_online_store
from skewless.infra.records.predictions.segments import PREDICTIONS, prediction_spool
from skewless.operations.data.decision_port import DecisionStatus, SinkStatus, find_decisions
from skewless.operations.health.server_status import read_server
from skewless.operations.health.window_status import SourceStatus, WindowStatus, event_sources, windowed_views
from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class PlanStatus:
    """The applied plan.

    Args:
        number: of the project's plans, from 1.
        state: whether definitions and registry have changed since, in words.
    """

    hash: str
    number: int
    applied_at: str
    state: str
    current: bool


@dataclass(frozen=True, kw_only=True)
class OnlineStatus:
    """Whether the online store is reachable.

    Args:
        url: without a password; None: the private server does not run.
        reason: why it is not reachable.
    """

    reachable: bool
    url: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ViewStatus:
    """A view in the log and in the online store.

    Args:
        needed_by: the plan, or versions of models.
        rejected: None: unknown because of the problem.
        online_seq: log position of the online store's marker; None: no marker, or unknown.
        online_current: whether the online store has all rows of the log; None: unknown.
        problem: of a file of its log; None: there is none.
    """

    view: str
    hash: str = field(metadata=JSON_ONLY)
    needed_by: list[str] = field(metadata=JSON_ONLY)
    log_rows: int
    rejected: int | None
    declared_delay_s: float
    observed_delay_s: float | None
    last_run: str | None
    online_seq: int | None = field(metadata=JSON_ONLY)
    online_current: bool | None
    problem: str | None = field(default=None, metadata=JSON_ONLY)


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """A model's champion, with the metric of its gate."""

    model: str
    champion: str | None = None
    metric: str | None = None
    value: float | None = None
    moves: int = 0
    problem: str | None = None
    versions: int = field(default=0, metadata=JSON_ONLY)


@dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    """A process of the project.

    Args:
        plan: hash of its plan; None: not reported yet.
        silent_s: seconds since its last heartbeat.
    """

    kind: str
    host: str
    pid: int
    plan: str | None
    started_at: str
    silent_s: float = field(metadata=JSON_ONLY)
    lives: bool
    detail: dict[str, Any] = field(metadata=JSON_ONLY)


@dataclass(frozen=True, kw_only=True)
class ProjectStatus(PlainRecord):
    """The state of a project.

    Args:
        left_out: rows that the online store skipped: ``view``, ``verb``, ``reason``, ``rows``, ``seen``.
        unneeded: unused versions of views.
        decisions: decision streams of the plan, if the plug-in that decides is installed.
        sinks: their sinks.
        server: ``url``, ``pid`` and ``problems`` of this machine's prediction server; None: it does not run.
        predictions: number of logged predictions; None: unknown.
        unshipped: number of predictions in the spool of this machine.
        database: why it is unavailable; None: it answers. Without it only online, server and unshipped are known.
    """

    repo: str
    state: str
    online: OnlineStatus
    server: dict[str, Any] | None
    unshipped: int
    plan: PlanStatus | None = None
    views: list[ViewStatus] = field(default_factory=list)
    windows: list[WindowStatus] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    sources: list[SourceStatus] = field(default_factory=list)
    decisions: list[DecisionStatus] = field(default_factory=list)
    sinks: list[SinkStatus] = field(default_factory=list)
    unneeded: list[ViewLifecycle] = field(default_factory=list)
    processes: list[ProcessStatus] = field(default_factory=list)
    models: list[ModelStatus] = field(default_factory=list)
    predictions: int | None = None
    database: str | None = None

    @property
    def log_problems(self) -> list[str]:
        """The problems of the logs, for which parts of their views and sources are unknown."""
        problems = [view.problem for view in self.views] + [source.problem for source in self.sources]
        return [problem for problem in problems if problem is not None]


def read_status(project: Workspace) -> ProjectStatus:
    """Return the state of a project; starts nothing, changes nothing."""
    database = project.state.database  # of an older release it has no state to read
    with open_online(project) as (online, store):
        # The parts that need no database; a server answers without it, too.
        status = ProjectStatus(
            repo=str(project.repo),
            state=str(project.state.folder),
            online=online,
            server=read_server(project.state),
            unshipped=_count_unshipped(project.state),
        )
        try:
            database.query("SELECT 1")
        except StoreError as error:
            return replace(status, database=error.problem)
        return _read_all(project, status, store)


def _read_all(project: Workspace, status: ProjectStatus, store: OnlineWriter | None) -> ProjectStatus:
    applied = read_applied(project.state)
    needed = project.needed if applied else None
    ledger, deciding = RunLedger(project.state.database), find_decisions() if applied and applied.decisions else None
    models = {*project.packages.list_models(), *(spec.name for spec in (applied.models if applied else ()))}
    return replace(
        status,
        plan=plan_status(project, applied) if applied else None,
        views=[_view(project, needed, view, ledger, store) for view in needed.plan.views] if needed else [],
        windows=windowed_views(project, needed, store) if needed else [],
        left_out=[_skipped(item) for item in read_skipped(project.state)],
        sources=event_sources(project, needed) if needed else [],
        decisions=deciding.read_streams(project) if deciding else [],
        sinks=deciding.read_sinks(project) if deciding else [],
        unneeded=[life for life in read_lifecycles(project.state) if life.stage != "needed"],
        processes=running_processes(project.state),
        models=[_model(project, applied, name) for name in sorted(models)],
        predictions=status.unshipped + Catalog(project.state.database).count_rows(PREDICTIONS),
    )


@contextmanager
def open_online(project: Workspace) -> Iterator[tuple[OnlineStatus, OnlineWriter | None]]:
    """Yield whether the online store is reachable, with a connection if it is; the private server is not started."""
    url, store = project.settings.redis_url or PrivateServer(project.state.folder).status().url, None
    reason = "the private server does not run; it starts when a command needs it" if url is None else None
    with ExitStack() as stack:
        try:
            store = None if url is None else stack.enter_context(closing(open_online_store(url)))
        except StoreError as error:
            reason = error.problem
        shown = None if url is None else display_url(url)
        yield OnlineStatus(reachable=store is not None, url=shown, reason=reason), store


def running_processes(state: ProjectState) -> list[ProcessStatus]:
    """Return the processes of the project, each with its plan and the time since its last heartbeat."""
    now_s = state.database.now_us() / 1e6
    return [
        ProcessStatus(
            kind=item.kind,
            host=item.host,
            pid=item.pid,
            plan=item.plan or None,
            started_at=iso_text(int(item.started_s * 1e6)),
            silent_s=round(item.silent_s(now_s), 1),
            lives=not item.is_silent(now_s),
            detail=dict(item.detail),
        )
        for item in read_processes(state)
    ]


def _skipped(item: SkippedRows) -> dict[str, Any]:
    seen = None if item.at_us is None else iso_text(item.at_us)
    return {"view": item.view, "verb": item.verb, "reason": item.reason, "rows": item.rows, "seen": seen}


def plan_state(repo: Path, state: ProjectState, applied: AppliedPlan) -> str:
    """Return whether the definitions or Feast's registry have changed since the plan was applied, in words."""
    if read_registry_state(repo, state, applied) == "foreign":
        return "registry changed since apply"
    if find_edited_files(repo, applied):
        return "changed since apply"
    return "unchanged since apply"


def plan_status(project: Workspace, applied: AppliedPlan) -> PlanStatus:
    """Return the applied plan, and whether definitions or registry have changed since."""
    state = plan_state(project.repo, project.state, applied)
    return PlanStatus(
        hash=applied.plan.hash,
        number=read_plan_number(project.state),
        applied_at=iso_text(applied.applied_us),
        state=state,
        current=state == "unchanged since apply",
    )


def _view(
    project: Workspace, needed: NeededViews, view: View, ledger: RunLedger, store: OnlineWriter | None
) -> ViewStatus:
    log = PartitionLog(project.state, view.partition)
    last_end_us = ledger.last_end_us(view.partition)
    is_live = ledger.recent_ranges(view.partition, DELAY_RUNS).is_live.any()
    rejected = delay = seq = problem = None
    try:
        rejected = count_rejected(log.files())
        delay = project.views.observed_delay_us(view) if is_live else None  # else DuckDB is not imported
    except StoreError as error:
        problem = error.sentence()
    try:
        seq = None if store is None else store.marker(marker_key(needed.plan.project, view))
    except StoreError:
        store = None  # it became unavailable after it was opened
    return ViewStatus(
        view=needed.label(view),
        hash=view.hash,
        needed_by=list(needed.readers[view.hash]),
        log_rows=log.next_seq(),
        rejected=rejected,
        declared_delay_s=view.delay_us / 1e6,
        observed_delay_s=None if delay is None else delay / 1e6,
        last_run=None if last_end_us is None else iso_text(last_end_us),
        online_seq=seq,
        online_current=None if store is None else seq == log.next_seq() - 1,
        problem=problem,
    )


def _model(project: Workspace, applied: AppliedPlan | None, name: str) -> ModelStatus:
    status = ModelStatus(model=name)
    try:
        aliases = project.store.aliases
        versions, moves = len(project.packages.list_versions(name)), len(aliases.history(name, CHAMPION))
        status = replace(status, versions=versions, moves=moves)
        version = aliases.get(name, CHAMPION)
        if version is not None:
            package = open_package(project.store, name, version)
            metric = package.spec.gate.metric
            status = replace(status, champion=version, metric=metric, value=package.metrics.get(metric))
        if applied and name not in {spec.name for spec in applied.models}:
            status = replace(status, problem="not in the applied plan")
    except SkewlessError as error:
        status = replace(status, problem=f"{error.thing}: {error.problem}")
    return status


def _count_unshipped(state: ProjectState) -> int:
    waiting = 0
    # Waiting files are counted and not shipped: a full disk must not prevent a status.
    for path in prediction_spool(state).waiting():
        with suppress(FileNotFoundError, pa.ArrowInvalid):  # shipped meanwhile, or corrupt: `doctor` names it
            waiting += int(pq.read_metadata(path).num_rows)
    return waiting
