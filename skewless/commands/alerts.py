"""``skewless alerts``: what somebody should look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

All = Annotated[bool, typer.Option("--all", help="Show those that are resolved too.")]
Resolve = Annotated[
    int | None, typer.Option("--resolve", metavar="NUMBER", help="Close this alert; it comes back if its cause does.")
]
_COLUMNS = ("number", "alert", "severity", "subject", "since", "resolved", "message")


def alerts(*, show_all: All = False, resolve: Resolve = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show open alerts, or close one by hand."""
    with answering(as_json=as_json) as output:
        bodies = [item.as_dict() for item in open_project(output, repo).alerts(show_all=show_all, resolve=resolve)]
        rows = [[body[name] for name in _COLUMNS] for body in bodies]
        output.answer({"alerts": bodies}, table("alerts", _COLUMNS, rows) if rows else "no alert is open")
