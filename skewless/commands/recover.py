"""``skewless recover``: the logs, after the database was restored to an older state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, error_body, facts_table, records_table, show_error

DryRun = Annotated[bool, typer.Option("--dry-run", help="show what would be added; change nothing")]


def recover(*, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Add rows back to the logs after the database was restored to an older state."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("comparing the logs with the storage"):
            report = project.recover(dry_run=dry_run)
        error = report.error
        facts: list[tuple[str, Any]] = [
            ("rows added to a log", sum(log.appended for log in report.logs)),
            ("rows of merged segments", sum(log.replaced for log in report.logs)),
            ("runs of materialize", len(report.runs)),
            ("unused objects", report.unused),
        ]
        parts: list[Part] = [facts_table("recover (dry run)" if dry_run else "recover", facts)]
        if report.conflicts:
            names = ("partition", "position", "problem")
            parts.append(records_table("not added", names, report.conflicts))
        parts += [f"run `skewless import {source}`: its latest import is not in the log" for source in report.imports]
        parts += [f"missing: {name}" for name in report.missing]
        parts += [f"view {each['view']} is ahead of log {each['log']}" for each in report.ahead]
        parts += [f"version {each} has neither an alias nor a decision" for each in report.versions]
        if report.unchecked:
            parts.append(f"not checked: {report.unchecked}")
        if not (report.logs or report.conflicts or report.missing or report.imports or report.ahead):
            parts.append("nothing to do: the logs have all their rows")
        output.show(report.as_dict() | (error_body(error) if error else {}), *parts)
        if error is not None:
            if not as_json:
                show_error(error_body(error)["error"]["message"])
            raise typer.Exit(error.exit_code)
