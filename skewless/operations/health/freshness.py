"""Freshness: the age of the latest data of each view, in the log and online, compared with its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skewless.contract.errors import StoreError
from skewless.contract.keys import KeyCodec, marker_key
from skewless.contract.names import check_known
from skewless.contract.plan import View
from skewless.contract.readable import duration_text
from skewless.contract.rows import RowCodec
from skewless.contract.windows.view import WindowView
from skewless.infra.models.verdicts.last_verdicts import Freshness, save_last
from skewless.infra.platform.alerts.alerts import Alert, Alerts, open_alerts
from skewless.infra.platform.host.processes import read_processes
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.offline.key_samples import sample_row_keys
from skewless.infra.reads.offline.log_parts import latest_event_us
from skewless.infra.reads.online.window_states import WindowStates
from skewless.operations.health.checkup.project import LOG, REFUSED, SILENT, find_problems
from skewless.workspace import Workspace

ALERT = "freshness"
_SAMPLE, _SEED = 200, 0
_log = EventLogger()


def check_freshness(project: Workspace, views: Sequence[str] = ()) -> list[Freshness]:
    """Measure the freshness of views, store the results, and send or resolve their alerts.

    Args:
        views: names; empty: all.

    Raises:
        RequestError: the plan has no such view.
        StoreError: a log file is corrupt, or the disk failed.
    """
    problems: dict[str, str] = {}
    results = [_measure(project, view, problems) for view in _views(project, views)]
    if problems:
        _log.warning("online_store_not_sampled", views=[*problems], problem=next(iter(problems.values())))
    save_last(project.state, Freshness, results)
    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        for result in results:
            _update_alert(alerts, result)
        _update_process_alerts(alerts, project)
    return results


def _views(project: Workspace, names: Sequence[str]) -> list[View | WindowView]:
    needed = project.needed
    views = {needed.label(view): view for view in needed.plan.all_views}
    for name in names:
        check_known("view", name, views)
    return [views[name] for name in names] or list(views.values())


def _measure(project: Workspace, view: View | WindowView, problems: dict[str, str]) -> Freshness:
    """Return the freshness of one view; if the online store is unavailable, only that of its log.

    Args:
        problems: gets the problem of the online store, by view.
    """
    sampled, stale, watermark_us = None, None, None
    try:
        watermark_us = read_watermarks(project, [view])[view.hash]
        if isinstance(view, View):
            sampled, stale = _sample_rows(project, view)
    except StoreError as error:
        problems[project.needed.label(view)] = error.problem
    return Freshness(
        view=project.needed.label(view),
        hash=view.hash,
        at_us=project.clock.now_us(),
        limit_us=view.freshness_us,
        newest_us=read_newest_us(project, view),
        sampled=sampled,
        stale=stale,
        watermark_us=watermark_us,
        windowed=not isinstance(view, View),
    )


def read_newest_us(project: Workspace, view: View | WindowView) -> int | None:
    """Return the time of the latest event in the log of a view; None: it has none."""
    if isinstance(view, View):
        files = project.views.log(view).files()
    else:
        files = [file for part in project.views.log_partitions(view) for file in part.files]
    return latest_event_us(project.connection, files)


def read_watermarks(project: Workspace, views: Sequence[View | WindowView]) -> dict[str, int | None]:
    """Return the watermark of the online rows of views, by hash; None: unknown.

    Two round trips, however many views there are.

    Raises:
        StoreError: the online store is unavailable.
    """
    plan, reader = project.needed.plan, project.online_reader
    states = {view.hash: WindowStates(replace(plan, windows=(view,))) for view in views if isinstance(view, WindowView)}
    pointers = [pointer for item in states.values() for pointer in item.pointers]
    texts = reader.get_with_markers(pointers, [])[0] if pointers else []
    for item, text in zip(states.values(), texts, strict=True):
        item.load_generations([text])
    names = {
        view.hash: [marker_key(plan.project, view)] if isinstance(view, View) else states[view.hash].markers
        for view in views
    }
    flat = [name for markers in names.values() for name in markers]
    marks = dict(zip(flat, reader.get_with_markers([], flat)[1] if flat else [], strict=True))
    watermarks = {name: mark.watermark_us if mark else 0 for name, mark in marks.items()}
    return {key: min((watermarks[name] for name in markers), default=0) or None for key, markers in names.items()}


def _sample_rows(project: Workspace, view: View) -> tuple[int, int]:
    """Return the number of sampled online rows of a view, and the number of stale rows among them.

    Raises:
        StoreError: the online store is unavailable.
    """
    keys = sample_row_keys(project.connection, view.keys, project.views.log(view).files(), _SAMPLE, _SEED)
    columns = {name: keys[name].combine_chunks() for name in keys.column_names}
    packed_keys = KeyCodec(project.applied.plan.project, view).pack(columns).to_pylist()
    rows, _ = project.online_reader.get_with_markers(packed_keys, [])
    packed = [row for row in rows if row is not None]
    codec = RowCodec(view)
    packed = [row for row, sound in zip(packed, codec.find_intact(packed).tolist(), strict=True) if sound]
    events = codec.decode(packed).versions.event_ts
    limit = view.freshness_us
    return len(packed), int((project.clock.now_us() - events > limit).sum()) if limit else 0


def _update_alert(alerts: Alerts, result: Freshness) -> None:
    if not result.is_late:
        alerts.resolve(ALERT, result.view, result.at_us)
        return
    age_us = result.watermark_age_us if result.is_frozen else result.age_us
    age, limit = (duration_text((us or 0) / 1e6) for us in (age_us, result.limit_us))
    problem = "has no event" if result.newest_us is None else f"latest event is {age} old"
    if result.is_frozen:
        problem = f"was not updated for {age}"
    alerts.send(
        Alert(
            name=ALERT,
            severity="warning",
            subject=result.view,
            message=f"{problem} (limit {limit})",
            at_us=result.at_us,
            evidence={
                "newest_us": result.newest_us,
                "watermark_us": result.watermark_us,
                "sampled": result.sampled,
                "stale": result.stale,
            },
        )
    )


def _update_process_alerts(alerts: Alerts, project: Workspace) -> None:
    """Send alerts for silent processes, failing prediction logs and rejected models; resolve alerts without a cause."""
    now_s, at_us = project.state.database.now_us() / 1e6, project.clock.now_us()
    problems = {
        (problem.alert, problem.subject): problem.text
        for item in read_processes(project.state)
        for problem in find_problems(item, now_s)
        if problem.alert
    }
    for (name, subject), text in problems.items():
        alerts.send(Alert(name=name, severity="critical", subject=subject, message=text, at_us=at_us))
    open_keys = {alert.key for alert in open_alerts(project.state) if alert.name in {SILENT, REFUSED, LOG}}
    for name, subject in open_keys - problems.keys():
        alerts.resolve(name, subject, at_us)
