"""``skewless freshness``: how old the newest data of each view is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table
from skewless.contract.errors import GateError

Views = Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Views of any kind; none: all.")]
Check = Annotated[bool, typer.Option("--check", help="Exit 5 if a view is late.")]
_COLUMNS = ("view", "newest event", "age", "watermark age", "allowed", "online rows read", "stale", "late")


def freshness(views: Views = None, *, check: Check = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Compare the age of each view with its tag skewless.freshness, and look after processes; keep it, and alert."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("reading the newest events"):
            report = project.freshness(views or ())
        bodies = [item.as_dict() for item in report]
        output.answer({"views": bodies}, table("views", _COLUMNS, [list(body.values()) for body in bodies]))
        if check and any(item.is_late for item in report):
            raise typer.Exit(GateError.exit_code)
