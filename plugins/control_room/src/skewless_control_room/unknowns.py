"""Unknown things about a project: checks that have never run, are overdue, or had too little to compare.

It reads the stored results of the checks and measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skewless.contract.plan import View
from skewless.contract.render import count_text
from skewless.contract.windows.view import WindowView
from skewless.infra.log.catalog import Catalog
from skewless.infra.models.verdicts.last_verdicts import Freshness, LastParity, read_last
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.health.finding import CheckFinding, unknown
from skewless.operations.models.drift import latest_drift
from skewless.training.scheduling.job import parse_schedule
from skewless.workspace import Workspace

_NAMES = 3
_OVERDUE = "the last result is older than the schedule allows"
_GRACE_US = 15 * 60_000_000  # a check may take this long after its tick, before it counts as overdue


def find_unknown_views(project: Workspace) -> list[CheckFinding]:
    """Return the views of which is not known whether online values equal the log, and whether data is fresh.

    Raises:
        StalePlanError: no plan is applied.
        StoreError: the database is unavailable.
    """
    needed, settings = project.needed, project.settings
    views = {needed.label(view): view for view in needed.plan.all_views}
    parity, freshness = read_last(project.state, LastParity), read_last(project.state, Freshness)
    checks = (("parity", settings.parity_cron, parity), ("freshness", settings.freshness_cron, freshness))
    findings = [item for name, cron, last in checks for item in _judge_checks(project, name, cron, views, last)]
    unread = [name for name, item in parity.items() if name in views and item.unavailable]
    if unread:
        findings.append(
            _unknown_views("parity", unread, "the online store could not read all entities of the last check")
        )
    return findings


def find_unknown_replays(project: Workspace) -> list[CheckFinding]:
    """Return whether logged predictions wait to be replayed for longer than the schedule says.

    Raises:
        StoreError: the database is unavailable.
    """
    catalog = Catalog(project.state.database)
    tick_us = _last_tick_us(project, "replay", project.settings.replay_cron)
    rows = catalog.count_rows(PREDICTIONS, unproven_before_us=tick_us or project.clock.now_us())
    if not rows:
        return []
    text = "prediction has" if rows == 1 else "predictions have"
    return [unknown("replay", f"{rows:,} logged {text} not been replayed", "skewless replay --new")]


def find_unknown_models(project: Workspace, models: frozenset[str] | None) -> list[CheckFinding]:
    """Return the models whose live quality or drift is not known.

    Args:
        models: the only ones that count; None: all.

    Raises:
        StalePlanError: no plan is applied.
        StoreError: the database is unavailable.
    """
    ledger, models_by_reason = Ledger(project.state), dict[tuple[str, str], list[str]]()
    quality_us = _last_tick_us(project, "quality", project.settings.quality_cron)
    drift_us = _last_tick_us(project, "drift", project.settings.drift_cron)
    for name in sorted(spec.name for spec in project.models if models is None or spec.name in models):
        reasons = {
            "quality": _quality_reason(ledger, name, quality_us),
            "drift": _drift_reason(latest_drift(project, name), drift_us),
        }
        for check, reason in reasons.items():
            if reason:
                models_by_reason.setdefault((check, reason), []).append(name)
    return [
        CheckFinding(
            name=check,
            verdict="unknown",
            detail=reason,
            fix=f"skewless {check} {names[0] if len(names) == 1 else 'MODEL'}",
            models=names[:_NAMES],
            total=len(names),
        )
        for (check, reason), names in sorted(models_by_reason.items())
    ]


def _judge_checks(
    project: Workspace,
    check: str,
    cron: str,
    views: Mapping[str, View | WindowView],
    last: Mapping[str, LastParity] | Mapping[str, Freshness],
) -> Iterator[CheckFinding]:
    """Yield the views that a check has not seen with their current definition, and the views of which it is late."""
    seen = {name: last[name].at_us for name, view in views.items() if name in last and last[name].hash == view.hash}
    never = [name for name in views if name not in seen]
    if never:
        yield _unknown_views(check, never, "it has never been checked")
    tick_us = _last_tick_us(project, check, cron)
    late = [name for name, at_us in seen.items() if _is_overdue(at_us, tick_us)]
    if late:
        yield _unknown_views(check, late, _OVERDUE)


def _unknown_views(check: str, names: Sequence[str], reason: str) -> CheckFinding:
    shown = sorted(names)[:_NAMES]
    return CheckFinding(
        name=check, verdict="unknown", detail=reason, fix=f"skewless {check}", views=shown, total=len(names)
    )


def _quality_reason(ledger: Ledger, model: str, tick_us: int | None) -> str:
    """Return why the live quality of a model is not known; empty: it is.

    Args:
        tick_us: when it should have been measured by now; None: there is no schedule.
    """
    runs = ledger.read_latest_first(f"quality {model}", state="done", limit=1)
    if not runs:
        return "the scheduler has never measured it"
    if _is_overdue(runs[0].ended_us or runs[0].started_us, tick_us):
        return _OVERDUE
    versions: list[dict[str, Any]] = runs[0].outputs.get("versions") or []
    counts = {name: sum(int(item.get(name) or 0) for item in versions) for name in ("predictions", "labelled")}
    if not counts["predictions"]:
        return "the last measurement found no prediction"
    if not counts["labelled"]:
        return f"labels are not mature: none of {count_text(counts['predictions'], 'prediction')} has an outcome"
    return ""


def _drift_reason(report: Mapping[str, Any] | None, tick_us: int | None) -> str:
    """Return why the drift of a model is not known; empty: it is."""
    if report is None:
        return "it has never been measured"
    if _is_overdue(int(report["until_us"]), tick_us):
        return _OVERDUE
    return "the last window had too few predictions" if report["verdict"] == "too_few_rows" else ""


def _is_overdue(at_us: int, tick_us: int | None) -> bool:
    return tick_us is not None and at_us < tick_us


def _last_tick_us(project: Workspace, check: str, cron: str) -> int | None:
    """Return when a check should have run by now, by its schedule; None: it has none."""
    schedule = parse_schedule(check, cron)
    return None if schedule is None else schedule.latest(0, project.clock.now_us() - _GRACE_US)
