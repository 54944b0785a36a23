"""``skewless alerts``: what somebody should look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table
from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError

if TYPE_CHECKING:
    from skewless.infra.alerts.alerts import KeptAlert

All = Annotated[bool, typer.Option("--all", help="Show those that are resolved too.")]
Resolve = Annotated[
    int | None, typer.Option("--resolve", metavar="NUMBER", help="Close this alert; it comes back if its cause does.")
]
_COLUMNS = ("number", "alert", "severity", "subject", "since", "resolved", "message")


def alerts(*, show_all: All = False, resolve: Resolve = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show open alerts, or close one by hand."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        from skewless.infra.alerts.alerts import Alerts

        with Alerts(project.state, project.settings.alert_webhook) as kept:
            if resolve is not None:
                chosen = _open(kept.kept(), resolve).alert
                kept.resolve(chosen.name, chosen.subject, project.clock.now_us())
            shown = [item for item in kept.kept() if show_all or item.is_open]
        bodies = [_body(item) for item in shown]
        rows = [[body[name] for name in _COLUMNS] for body in bodies]
        output.answer({"alerts": bodies}, table("alerts", _COLUMNS, rows) if rows else "no alert is open")


def _open(kept: list[KeptAlert], number: int) -> KeptAlert:
    found = {item.number: item for item in kept if item.is_open}
    if number not in found:
        fix = f"use one of: {', '.join(map(str, found)) or 'none is open'}"
        raise RequestError("alert", "is not open", value=number, fix=fix)
    return found[number]


def _body(item: KeptAlert) -> dict[str, object]:
    return {
        "number": item.number,
        "alert": item.alert.name,
        "severity": item.alert.severity,
        "subject": item.alert.subject,
        "since": _moment(item.since_us),
        "resolved": None if item.resolved_at_us is None else _moment(item.resolved_at_us),
        "message": item.alert.message,
        "evidence": dict(item.alert.evidence),
        "owed": list(item.owed),
    }


def _moment(at_us: int) -> str:
    return from_us(at_us).isoformat(timespec="seconds")
