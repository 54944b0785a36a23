"""``skewless backup``, ``skewless restore`` and ``skewless upgrade``: ways in and out of a project's state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, command_output, facts_table

if TYPE_CHECKING:
    from skewless.operations.backup import Backup

Folder = Annotated[Path, typer.Argument(help="folder of the backup", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="count only; change nothing")]


def backup(folder: Folder, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Copy database and files of the project into a new folder, while everything runs."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress("copying files") as advance:
            result = project.backup(
                folder.absolute(), dry_run=dry_run, on_file=lambda done, total: advance("copying files", done, total)
            )
        _show(output, "backup", result, dry_run=dry_run)


def restore(folder: Folder, *, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Copy a backup into an empty state folder and an empty database."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress("copying files") as advance:
            result = project.restore(
                folder.absolute(), dry_run=dry_run, on_file=lambda done, total: advance("copying files", done, total)
            )
        hint = "" if dry_run else "next: `skewless materialize` fills the online store from the log"
        _show(output, "restore", result, hint, dry_run=dry_run)


def upgrade(*, repo: Repo = Path(), dry_run: DryRun = False, as_json: Json = False) -> None:
    """Bring the state of an older release to this one."""
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        report = project.upgrade(dry_run=dry_run)
        facts: list[tuple[str, Any]] = [
            ("schema of the database", f"{report.schema_before} -> {report.schema}"),
            *report.imported.items(),
        ]
        title = "upgrade (dry run)" if dry_run else "upgrade"
        output.show(report.as_dict(), facts_table(title, facts))


def _show(output: Output, title: str, result: Backup, *hints: str, dry_run: bool) -> None:
    facts: list[tuple[str, Any]] = [
        ("folder", result.folder),
        ("rows of the database", sum(result.rows.values())),
        ("files", result.files),
        ("bytes", result.size),
    ]
    title = f"{title} (dry run)" if dry_run else title
    output.show(result.as_dict() | {"dry_run": dry_run}, facts_table(title, facts), *(hint for hint in hints if hint))
