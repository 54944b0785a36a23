"""``skewless alerts``: the open alerts of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import command_output, records_table

All = Annotated[bool, typer.Option("--all", help="List resolved alerts too.")]
Resolve = Annotated[
    int | None,
    typer.Option("--resolve", metavar="NUMBER", help="Resolve this alert; it opens again if its cause returns."),
]
_COLUMNS = ("number", "alert", "severity", "subject", "since", "resolved", "message")


def alerts(*, show_all: All = False, resolve: Resolve = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """List open alerts, or resolve one."""
    with command_output(as_json=as_json) as output:
        bodies = [item.as_dict() for item in open_project(output, repo).alerts(show_all=show_all, resolve=resolve)]
        part = records_table("alerts", _COLUMNS, bodies)
        output.show({"alerts": bodies}, part if bodies else "no alert is open")
