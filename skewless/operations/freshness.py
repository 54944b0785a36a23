"""Freshness: how old the newest data of each view is, in the log and online, against what its definition allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from skewless.contract.errors import StoreError
from skewless.contract.names import check_known

if TYPE_CHECKING:
    from skewless.contract.plan import View
    from skewless.contract.windows.view import WindowView
    from skewless.infra.alerts.alerts import Alerts, Severity
    from skewless.infra.verdicts.last_verdicts import Freshness
    from skewless.workspace import Workspace

ALERT = "freshness"
SILENT, REFUSED, LOG = "process_silent", "model_refused", "prediction_log"
_SAMPLE, _SEED = 200, 0
_log = structlog.get_logger()


def look(project: Workspace, names: Sequence[str] = ()) -> list[Freshness]:
    """Look at views, keep what is found, and alert of each that is late or resolve its alert.

    Args:
        names: of views; none: all.

    Raises:
        RequestError: there is no such view.
        StoreError: a log file is damaged, or the disk refused.
    """
    from skewless.infra.alerts.alerts import Alerts
    from skewless.infra.verdicts.last_verdicts import save_freshness

    found = [_of(project, view) for view in _chosen(project, names)]
    save_freshness(project.state, found)
    with Alerts(project.state, project.settings.alert_webhook) as alerts:
        for item in found:
            _tell(alerts, item)
        _tell_processes(alerts, project)
    return found


def _chosen(project: Workspace, names: Sequence[str]) -> list[View | WindowView]:
    needed = project.needed
    known = {needed.label(view): view for view in needed.plan.all_views}
    for name in names:
        check_known("view", name, known)
    return [known[name] for name in names] or list(known.values())


def _of(project: Workspace, view: View | WindowView) -> Freshness:
    from skewless.contract.plan import View
    from skewless.infra.offline.log_parts import latest_event_us
    from skewless.infra.verdicts.last_verdicts import Freshness

    if isinstance(view, View):
        files, online = project.views.log(view).files(), _online(project, view)
    else:
        files = [file for part in project.views.log_partitions(view) for file in part.files]
        online = (None, None)
    return Freshness(
        view=project.needed.label(view),
        hash=view.hash,
        at_us=project.clock.now_us(),
        limit_us=view.freshness_us,
        newest_us=latest_event_us(project.connection, files),
        sampled=online[0],
        stale=online[1],
        watermark_us=_watermark_us(project, view),
        windowed=not isinstance(view, View),
    )


def _watermark_us(project: Workspace, view: View | WindowView) -> int | None:
    """Return up to when all that had arrived in a view is online; None: unknown, or the store is away."""
    from skewless.contract.keys import marker_key
    from skewless.contract.plan import View
    from skewless.infra.online.window_states import WindowStates

    plan, reader = project.needed.plan, project.online_reader
    try:
        if isinstance(view, View):
            names = [marker_key(plan.project, view)]
        else:
            states = WindowStates(replace(plan, windows=(view,)))
            states.load_generations(reader.get_with_markers(states.pointers, [])[0])
            names = states.markers
        marks = reader.get_with_markers([], names)[1] if names else []
    except StoreError as error:
        _log.warning("online_store_not_sampled", view=view.name, problem=error.problem)
        return None
    return min((mark.watermark_us if mark else 0 for mark in marks), default=0) or None


def _online(project: Workspace, view: View) -> tuple[int | None, int | None]:
    """Return of how many entities the online rows were read, and how many are stale; None: the store is away."""
    from skewless.contract.keys import KeyCodec
    from skewless.contract.rows import RowCodec
    from skewless.infra.offline.key_samples import sample_row_keys

    keys = sample_row_keys(project.connection, view.keys, project.views.log(view).files(), _SAMPLE, _SEED)
    columns = {name: keys[name].combine_chunks() for name in keys.column_names}
    try:
        rows, _ = project.online_reader.get_with_markers(
            KeyCodec(project.applied.plan.project, view).pack(columns).to_pylist(), []
        )
    except StoreError as error:
        _log.warning("online_store_not_sampled", view=view.name, problem=error.problem)
        return None, None
    there = [row for row in rows if row is not None]
    codec = RowCodec(view)
    there = [row for row, sound in zip(there, codec.find_intact(there).tolist(), strict=True) if sound]
    events = codec.decode(there).versions.event_ts
    limit = view.freshness_us
    return len(there), int((project.clock.now_us() - events > limit).sum()) if limit else 0


def _tell(alerts: Alerts, found: Freshness) -> None:
    from skewless.infra.alerts.alerts import Alert

    if not found.is_late:
        alerts.resolve(ALERT, found.view, found.at_us)
        return
    length = found.watermark_age_us if found.is_frozen else found.age_us
    age, limit = (timedelta(seconds=(length or 0) // 1_000_000) for length in (length, found.limit_us))
    said = "it has no event at all" if found.newest_us is None else f"its newest event is {age} old"
    if found.is_frozen:
        said = f"nothing has brought it up to date for {age}"
    alerts.send(
        Alert(
            name=ALERT,
            severity="warning",
            subject=found.view,
            message=f"{said}, and {limit} is allowed",
            at_us=found.at_us,
            evidence={
                "newest_us": found.newest_us,
                "watermark_us": found.watermark_us,
                "sampled": found.sampled,
                "stale": found.stale,
            },
        )
    )


def _tell_processes(alerts: Alerts, project: Workspace) -> None:
    """Alert of processes that are dead or stuck, or cannot log, and of models that servers refuse; resolve the rest."""
    from skewless.infra.alerts.alerts import Alert, open_alerts
    from skewless.infra.host.processes import read_processes

    now_s, at_us = time.time(), project.clock.now_us()
    wrong: dict[tuple[str, str], tuple[Severity, str]] = {}
    for item in read_processes(project.state):
        subject = f"{item.kind} {item.host} {item.pid}"
        if item.is_silent(now_s):
            wrong[SILENT, subject] = "critical", f"it has not been heard of for {item.silent_s(now_s):,.0f} s"
            continue
        for thing, why in item.detail.get("refused", {}).items():
            wrong[REFUSED, thing] = "critical", f"servers do not serve it: {why}"
        if item.detail.get("log") is not None:
            wrong[LOG, subject] = "critical", f"it cannot write the prediction log: {item.detail['log']}"
    for (name, subject), (severity, message) in wrong.items():
        alerts.send(Alert(name=name, severity=severity, subject=subject, message=message, at_us=at_us))
    told = {alert.key for alert in open_alerts(project.state) if alert.name in {SILENT, REFUSED, LOG}}
    for name, subject in told - wrong.keys():
        alerts.resolve(name, subject, at_us)
