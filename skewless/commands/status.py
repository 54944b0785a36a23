"""``skewless status``: where a project stands; nothing is started or changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def status(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show the plan in force, views, event sources, models, the server and the prediction log; changes nothing."""
    with answering(as_json=as_json) as output:
        body = open_project(output, repo).status().as_dict()
        output.answer(body, *_shown(body))


_VIEW_COLUMNS = ("view", "log_rows", "rejected", "declared_delay", "observed_delay", "last_run", "online_current")


_PROCESS_COLUMNS = ("kind", "host", "pid", "plan", "started_at", "lives")
_WINDOW_COLUMNS = ("view", "source", "generation", "log_rows", "lag", "online_current", "parity_mismatches")
_LEFT_OUT_COLUMNS = ("view", "verb", "reason", "rows", "seen")
_UNNEEDED_COLUMNS = ("name", "hash", "stage")
_SOURCE_COLUMNS = ("source", "kind", "partitions", "log_rows", "rejected", "late_share", "delay_p50_s", "delay_p99_s")


def _view_row(view: dict[str, Any]) -> list[object]:
    shown = {
        **view,
        "declared_delay": _length(view["declared_delay_s"]),
        "observed_delay": _length(view["observed_delay_s"]),
    }
    return [shown[name] for name in _VIEW_COLUMNS]


def _length(seconds: float | None) -> str | None:
    """Return a length of time for people.

    >>> _length(5400.0)
    '1:30:00'
    """
    return None if seconds is None else str(timedelta(seconds=round(seconds)))


def _shown(body: dict[str, Any]) -> list[RenderableType]:
    online, server, plan = body["online"], body["server"], body["plan"]
    lines = [
        ("plan", f"{plan['hash']}, applied {plan['applied_at']}" if plan else "nothing applied: run `skewless apply`"),
        ("definitions", plan["state"] if plan else "-"),
        ("online store", online["url"] if online["reachable"] else f"not reachable: {online['reason']}"),
        ("server", f"{server['url']} (pid {server['pid']})" if server else "does not run"),
        ("predictions", f"{body['predictions']:,} logged"),
    ]
    parts = [table(f"project in {body['repo']}", ("", ""), lines)]
    if body["views"]:
        parts.append(table("views", _VIEW_COLUMNS, [_view_row(view) for view in body["views"]]))
    for title, kind, names in (
        ("rows left out of the online store", "left_out", _LEFT_OUT_COLUMNS),
        ("windowed views", "windows", _WINDOW_COLUMNS),
        ("views that nothing reads any more", "unneeded", _UNNEEDED_COLUMNS),
        ("event sources", "sources", _SOURCE_COLUMNS),
        ("processes", "processes", _PROCESS_COLUMNS),
    ):
        if body[kind]:
            parts.append(table(title, names, [[item[name] for name in names] for item in body[kind]]))
    if body["models"]:
        columns = ("model", "champion", "metric", "value", "moves", "problem")
        parts.append(table("models", columns, [[model[name] for name in columns] for model in body["models"]]))
    return parts
