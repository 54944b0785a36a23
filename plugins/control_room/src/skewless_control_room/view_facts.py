"""The views of a project with their freshness, and the facts about one view; all reads are bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from skewless.contract.errors import RequestError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import View
from skewless.contract.readable import duration_text
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.needed_views import PLAN, NeededViews
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.runs import RunLedger
from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity, read_last
from skewless.infra.reads.offline.log_parts import measure_latest_delays
from skewless.operations.health.freshness import read_watermarks
from skewless.operations.health.status import open_online
from skewless.operations.health.window_status import read_window
from skewless.workspace import Workspace

FreshState = Literal["fresh", "late", "no limit", "unknown"]
_OLD_CHECK_US = 3_600_000_000  # the scheduler checks every five minutes
_DELAY_ROWS, _DELAY_PARTITIONS = 20_000, 8


@dataclass(frozen=True, kw_only=True)
class ViewAge(PlainRecord):
    """How fresh a view is; times are UTC microseconds.

    Args:
        state: ``unknown`` if nothing measured it within the last hour.
        why: the state in a sentence.
        limit_us: largest age by the view's tag ``skewless.freshness``; 0: no limit.
        watermark_us: time up to which the online rows include everything that had arrived; None: unknown.
        newest_us: time of the latest event at the last check; None: unknown.
        checked_us: time of the last check; None: there was none.
        watermark_age_s, newest_age_s: their ages by the project's clock, seconds.
        sampled, stale: online rows that the check read, and those of them that were older than the limit.
    """

    state: FreshState
    why: str
    limit_us: int
    watermark_us: int | None
    newest_us: int | None
    checked_us: int | None
    watermark_age_s: float | None
    newest_age_s: float | None
    sampled: int | None
    stale: int | None


@dataclass(frozen=True, kw_only=True)
class ViewSummary(PlainRecord):
    """A view in the list of all views.

    Args:
        view: its name, with ``@HASH`` if only models need it.
        keys: its join keys.
        source: path of its table, or name of its event source.
        log_rows: rows of its log, or of that of its event source.
        mismatches: of the last parity run; None: parity did not run for this version.
    """

    view: str
    kind: Literal["latest values", "windowed"]
    keys: list[str]
    features: int
    source: str
    log_rows: int
    age: ViewAge
    mismatches: int | None
    parity_us: int | None


def find_view(needed: NeededViews, name: str) -> View | WindowView:
    """Return a needed view by its name, with ``@HASH`` if only models need it.

    Raises:
        RequestError: there is none.
    """
    for view in needed.plan.all_views:
        if needed.label(view) == name:
            return view
    raise RequestError("view", "is unknown", value=name, fix="name a view of the applied plan")


def list_views(project: Workspace, *, most: int, after: str = "") -> tuple[list[ViewSummary], int, str | None]:
    """Return the needed views by name, their number, and why watermarks are unknown; None: they are known.

    Args:
        most: number of views that are returned.
        after: only views with later names.

    Raises:
        StalePlanError: no plan is applied.
        StoreError: the database is unavailable.
    """
    needed, database = project.needed, project.state.database
    views = sorted(needed.plan.all_views, key=needed.label)
    shown = [view for view in views if needed.label(view) > after][:most]
    watermarks, problem = try_watermarks(project, shown)
    checks, verdicts = read_last(project.state, Freshness), read_last(project.state, LastParity)
    ends = {name: end + 1 for name, end in (Catalog(database).ends("batch") | Catalog(database).ends("events")).items()}
    events: dict[str, int] = {}
    for name, rows in ends.items():
        source = name.split("/")[1]
        events[source] = events.get(source, 0) + rows
    summaries = []
    for view in shown:
        label, is_latest = needed.label(view), isinstance(view, View)
        verdict = verdicts.get(label)
        verdict = verdict if verdict is not None and verdict.hash == view.hash else None
        summaries.append(
            ViewSummary(
                view=label,
                kind="latest values" if is_latest else "windowed",
                keys=[column.name for column in view.keys],
                features=len(view.features),
                source=view.source.path if isinstance(view, View) else view.source,
                log_rows=ends.get(view.partition, 0) if isinstance(view, View) else events.get(view.source, 0),
                age=judge_age(view, checks.get(label), watermarks.get(view.hash), project.clock.now_us()),
                mismatches=None if verdict is None else verdict.mismatches,
                parity_us=None if verdict is None else verdict.at_us,
            )
        )
    return summaries, len(views), problem


def try_watermarks(
    project: Workspace, views: Sequence[View | WindowView]
) -> tuple[Mapping[str, int | None], str | None]:
    """Return the watermarks of views by hash, and why they are unknown; starts no online store."""
    with open_online(project) as (online, _):
        if not online.reachable:
            return {}, f"the online store does not answer: {online.reason}"
    try:
        return read_watermarks(project, views), None
    except StoreError as error:
        return {}, f"{error.thing}: {error.problem}"


def judge_age(view: View | WindowView, check: Freshness | None, watermark_us: int | None, now_us: int) -> ViewAge:
    """Return how fresh a view is, by its last check and its current watermark.

    Args:
        watermark_us: None: unknown now; then that of the check counts.
    """
    if check is not None and check.hash != view.hash:
        check = None  # of another version
    limit_us, seen_us = view.freshness_us, watermark_us or (check.watermark_us if check else None)
    state: FreshState
    if limit_us and watermark_us is not None and now_us - watermark_us > limit_us:
        age, limit = duration_text((now_us - watermark_us) / 1e6), duration_text(limit_us / 1e6)
        state, why = "late", f"was not updated for {age}, the limit is {limit}"
    elif check is None:
        state, why = "unknown", "was never checked"
    elif now_us - check.at_us > _OLD_CHECK_US:
        state, why = "unknown", f"was last checked {duration_text((now_us - check.at_us) / 1e6)} ago"
    elif not limit_us:
        state, why = "no limit", "declares no limit"
    elif replace(check, limit_us=limit_us).is_late:
        state, why = "late", _late_text(check, limit_us)
    else:
        state, why = "fresh", f"is within its limit of {duration_text(limit_us / 1e6)}"
    return ViewAge(
        state=state,
        why=why,
        limit_us=limit_us,
        watermark_us=seen_us,
        newest_us=check.newest_us if check else None,
        checked_us=check.at_us if check else None,
        watermark_age_s=_age_s(now_us, seen_us),
        newest_age_s=_age_s(now_us, check.newest_us if check else None),
        sampled=check.sampled if check else None,
        stale=check.stale if check else None,
    )


def _age_s(now_us: int, at_us: int | None) -> float | None:
    return None if at_us is None else max(0, now_us - at_us) / 1e6


def _late_text(check: Freshness, limit_us: int) -> str:
    if check.age_us is None:
        return "has no event"
    return f"latest event was {duration_text(check.age_us / 1e6)} old, the limit is {duration_text(limit_us / 1e6)}"


@dataclass(frozen=True, kw_only=True)
class ViewStore(PlainRecord):
    """A view in the log and in the online store.

    Args:
        needed_by: ``plan``, and the versions of models that read it.
        log_rows: positions of its log, or of all logs of its event source.
        last_run_us: end of the last run that applied rows, UTC microseconds; None: none did, or it is windowed.
        generation: of the states of a windowed view; None: they do not exist.
        lag: rows of the log that the online store lacks; None: unknown.
    """

    hash: str
    needed_by: list[str]
    log_rows: int
    last_run_us: int | None
    generation: int | None
    lag: int | None


def read_view_store(project: Workspace, view: View | WindowView) -> ViewStore:
    """Return the state of one view; reads no file of the log, and starts no online store."""
    needed = project.needed
    with open_online(project) as (_, store):
        if isinstance(view, WindowView):
            status = read_window(project, needed, view, store)
            return ViewStore(
                hash=view.hash,
                needed_by=status.needed_by,
                log_rows=status.log_rows,
                last_run_us=None,
                generation=status.generation,
                lag=status.lag,
            )
        rows = PartitionLog(project.state, view.partition).next_seq()
        position = None if store is None else store.marker(marker_key(needed.plan.project, view))
        return ViewStore(
            hash=view.hash,
            needed_by=list(needed.readers[view.hash]),
            log_rows=rows,
            last_run_us=RunLedger(project.state.database).last_end_us(view.partition),
            generation=None,
            lag=None if store is None else rows - (-1 if position is None else position) - 1,
        )


@dataclass(frozen=True, kw_only=True)
class ViewDelay(PlainRecord):
    """The declared delay of a view and the delay of its latest rows, seconds.

    Args:
        p50_s: median time from an event to the time from which serving knew it; None: no row came live.
        p99_s: 99th percentile, of events of a stream; None: unknown.
        late: share of the events with a delay of more than ten seconds; None: unknown.
    """

    declared_s: float
    p50_s: float | None
    p99_s: float | None = None
    late: float | None = None


def read_view_delay(project: Workspace, view: View | WindowView) -> ViewDelay:
    """Return the delay of the latest 20,000 rows of a view's log, or of each of eight partitions of its stream."""
    if isinstance(view, View):
        delay = project.views.observed_delay_us(view, rows=_DELAY_ROWS)
        return ViewDelay(declared_s=view.delay_us / 1e6, p50_s=None if delay is None else delay / 1e6)
    delays = measure_latest_delays(
        project.connection, project.state, view.source, partitions=_DELAY_PARTITIONS, rows=_DELAY_ROWS
    )
    declared_s = project.needed.plan.source(view.source).delay_us / 1e6
    return ViewDelay(declared_s=declared_s, p50_s=delays.p50_s, p99_s=delays.p99_s, late=delays.late)


@dataclass(frozen=True, kw_only=True)
class ViewReader(PlainRecord):
    """A feature service that reads a view, with its models.

    Args:
        features: of the view, in the service.
        models: names of the models of the service.
    """

    service: str
    features: int
    models: list[str]


def list_readers(project: Workspace, view: View | WindowView) -> list[ViewReader]:
    """Return the feature services of the applied plan that read a view, also those whose transforms do."""
    plan = project.applied.plan
    if PLAN not in project.needed.readers[view.hash]:
        return []
    return [
        ViewReader(
            service=service.name,
            features=sum(ref.group == view.name for ref in service.features),
            models=sorted(spec.name for spec in project.applied.models if spec.service == service.name),
        )
        for service in sorted(plan.services, key=lambda item: item.name)
        if any(item.name == view.name for item in plan.select_service(service.name).all_views)
    ]
