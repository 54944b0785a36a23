"""``skewless status``: the state of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from skewless.commands.cells import StateCell
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, facts_table, records_table
from skewless.contract.errors import StoreError
from skewless.operations.readable import time_text

_TABLES = (
    (
        "views",
        "views",
        ("view", "log_rows", "rejected", "declared_delay_s", "observed_delay_s", "last_run", "online_current"),
    ),
    ("rows skipped by the online store", "left_out", ("view", "command", "reason", "rows", "seen")),
    (
        "windowed views",
        "windows",
        ("view", "source", "generation", "log_rows", "lag", "online_current", "parity_mismatches"),
    ),
    ("unused views", "unneeded", ("name", "hash", "stage")),
    (
        "event sources",
        "sources",
        ("source", "kind", "partitions", "log_rows", "rejected", "late_share", "delay_p50_s", "delay_p99_s"),
    ),
    ("processes", "processes", ("kind", "host", "pid", "plan", "started_at", "alive")),
    ("models", "models", ("model", "champion", "metric", "value", "moves", "problem")),
)
_TITLES = {"verb": "command", "lives": "alive"}
_IDENTIFIERS = {"pid", "generation", "last_run"}


def status(*, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show the state of the project: plan, views, event sources, processes, models and the prediction log."""
    with command_output(as_json=as_json, is_short=True) as output:
        body = open_project(output, repo).status().as_dict()
        output.show(body, *_parts(body))
        if body["database"] is not None:
            raise typer.Exit(StoreError.exit_code)


def _parts(body: dict[str, Any]) -> Iterator[Part]:
    online, server, plan = body["online"], body["server"], body["plan"]
    yield facts_table(
        f"project in {body['repo']}",
        [
            *_plan_facts(plan, body["database"]),
            ("online store", online["url"] if online["reachable"] else f"not reachable: {online['reason']}"),
            ("server", _server_text(server)),
            ("predictions", _predictions_text(body["predictions"], body["unshipped"])),
        ],
    )
    for title, kind, names in _TABLES:
        if body[kind]:
            yield records_table(title, names, [_shown(record) for record in body[kind]])


def _plan_facts(plan: dict[str, Any] | None, database: str | None) -> list[tuple[str, str]]:
    if database is not None:
        return [("database", f"{database}; plan, views, processes and models are unknown")]
    text = f"{plan['hash']}, applied {time_text(plan['applied_at'])}" if plan else "none: run `skewless apply`"
    return [("plan", text), ("definitions", plan["state"] if plan else "-")]


def _predictions_text(logged: int | None, unshipped: int) -> str:
    return f"{unshipped:,} in the spool of this machine" if logged is None else f"{logged:,} logged"


def _server_text(server: dict[str, Any] | None) -> str:
    if server is None:
        return "not running"
    problems = "".join(f"; {thing} {problem}" for thing, problem in server["problems"].items())
    return f"{server['url']} (pid {server['pid']}){problems}"


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with identifiers as texts, shares as percents, and states of its processes and stores."""
    values = {
        name: str(value) if name in _IDENTIFIERS and value is not None else value for name, value in record.items()
    }
    values |= {title: record[name] for name, title in _TITLES.items() if name in record}
    if isinstance(values.get("late_share"), float):
        values["late_share"] = f"{values['late_share']:.1%}"
    for name in ("online_current", "alive"):
        if isinstance(values.get(name), bool):
            values[name] = StateCell("yes") if values[name] else StateCell("no", "warning")
    return values
