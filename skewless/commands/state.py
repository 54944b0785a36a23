"""Commands on stored state: ``erase``, ``backup``, ``restore``, ``bundle`` and ``recover``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.command import UNCHANGED, DryRun, argument, command, option
from skewless.commands.output import Part, Session, facts_table, records_table
from skewless.contract.errors import RequestError

if TYPE_CHECKING:
    from skewless.operations.state.backup import Backup

Keys = Annotated[list[str] | None, option("--entity KEY=VALUE", "Value of a join key; once for each key.")]
Yes = Annotated[bool, option("--yes", "Erase without a question.")]
Target = Annotated[Path, argument("TARGET", "New folder, or new file that ends in .tar.gz.")]
BundledModels = Annotated[list[str] | None, argument("MODEL", "Models; default: all that have a champion.")]
Folder = Annotated[Path, typer.Argument(help="folder of the backup", show_default=False)]
_MEANINGS = {
    "rows": "rows of views",
    "events": "events",
    "predictions": "predictions",
    "outcomes": "outcomes",
    "lists": "versions of lists that had it",
    "online": "online rows and states",
    "built": "windowed views built again",
    "messages": "messages of Redis streams",
    "objects": "deleted files of logs",
    "waiting": "files that other processes still read",
    "digest": "digest of salt and keys",
    "salt": "salt",
}


@command(
    "Erase an entity from logs and online store.",
    "--entity card_id=9007199254740993 --dry-run",
    "--entity user=u7 --yes --json",
)
def erase(session: Session, *, entity: Keys = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Erase an entity from logs, online store and local copies, and print a receipt. It cannot be undone."""
    project = session.project
    keys = _parse_keys(entity or ())
    if not dry_run and not yes:
        _ask(keys, as_json=session.as_json)
    with session.working("erasing"):
        receipt = project.erase(keys, dry_run=dry_run)
    body = receipt.as_dict()
    facts = facts_table("would be erased" if dry_run else "erased", [(_MEANINGS[n], body[n]) for n in _MEANINGS])
    hints = [*(f"not covered: {each}" for each in body["not_covered"]), *([UNCHANGED] if dry_run else [])]
    session.end(body, facts, *hints, error=receipt.error)


def _parse_keys(items: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or name in keys:
            problem = "names a key twice" if sign else "is not KEY=VALUE"
            raise RequestError(
                "option --entity", problem, value=item, fix="write --entity KEY=VALUE, once for each key"
            )
        keys[name] = value
    return keys


def _ask(keys: dict[str, str], *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise RequestError("erasure", "needs a confirmation", fix="repeat the command with --yes")
    if not typer.confirm(f"Erase {', '.join(f'{name}={value}' for name, value in keys.items())} for ever?", err=True):
        raise RequestError("erasure", "was not confirmed", fix="answer y, or give --yes")


@command("Copy the project's state while everything runs.", "/backups/fraud-20260115 --repo my-project")
def backup(session: Session, folder: Folder, *, dry_run: DryRun = False) -> None:
    """Copy database and files of the project into a new folder, while everything runs."""
    _copy(session, "backup", session.project.backup, folder, dry_run=dry_run)


@command("Copy a backup into an empty state.", "/backups/fraud-20260115 --repo my-project")
def restore(session: Session, folder: Folder, *, dry_run: DryRun = False) -> None:
    """Copy a backup into an empty state folder and an empty database."""
    hint = "next: `skewless materialize` fills the online store from the log"
    _copy(session, "restore", session.project.restore, folder, *([] if dry_run else [hint]), dry_run=dry_run)


def _copy(session: Session, title: str, copy: Callable[..., Backup], folder: Path, *hints: str, dry_run: bool) -> None:
    with session.progress("copying files") as advance:
        result = copy(folder.absolute(), dry_run=dry_run, on_file=lambda *counts: advance("copying files", *counts))
    facts: list[tuple[str, Any]] = [
        ("folder", result.folder),
        ("rows of the database", sum(result.rows.values())),
        ("files", result.files),
        ("bytes", result.size),
    ]
    part = facts_table(_titled(title, dry_run=dry_run), facts)
    session.show(result.as_dict() | {"dry_run": dry_run}, part, *hints)


def _titled(title: str, *, dry_run: bool) -> str:
    return f"{title} (dry run)" if dry_run else title


@command(
    "Write the champions as a bundle for a server without a database.",
    "model.tar.gz fraud --repo my-project",
    "bundle --repo my-project --dry-run",
)
def bundle(session: Session, target: Target, models: BundledModels = None, *, dry_run: DryRun = False) -> None:
    """Write champions, plan and settings of serving as a bundle, for the container of a platform."""
    written = session.project.bundle(target, models or (), dry_run=dry_run)
    versions = ", ".join(f"{name} {version}" for name, version in written.models.items())
    facts = [("target", written.target), ("models", versions), ("digest", written.digest), ("bytes", written.size)]
    part = facts_table(_titled("bundle", dry_run=dry_run), facts)
    session.show(written.as_dict() | {"dry_run": dry_run}, part, *([UNCHANGED] if dry_run else []))


@command("Add rows back to the logs after a database failover.", "--dry-run --repo my-project", "--repo my-project")
def recover(session: Session, *, dry_run: DryRun = False) -> None:
    """Add rows back to the logs after the database was restored to an older state."""
    with session.working("comparing the logs with the storage") as project:
        report = project.recover(dry_run=dry_run)
    facts: list[tuple[str, Any]] = [
        ("rows added to a log", sum(log.appended for log in report.logs)),
        ("rows of merged segments", sum(log.replaced for log in report.logs)),
        ("runs of materialize", len(report.runs)),
        ("objects uploaded", len(report.uploaded)),
        ("unused objects", report.unused),
    ]
    parts: list[Part] = [facts_table(_titled("recover", dry_run=dry_run), facts)]
    if report.conflicts:
        parts.append(records_table("not added", report.conflicts, ("partition", "position", "problem")))
    parts += [f"run `skewless import {source}`: its latest import is not in the log" for source in report.imports]
    parts += [f"missing: {name}" for name in report.missing]
    parts += [f"view {each['view']} is ahead of log {each['log']}" for each in report.ahead]
    parts += [f"version {each} has neither an alias nor a decision" for each in report.versions]
    if report.unchecked:
        parts.append(f"not checked: {report.unchecked}")
    if not (report.logs or report.conflicts or report.missing or report.imports or report.ahead or report.uploaded):
        parts.append("nothing to do: the logs have all their rows")
    session.end(report.as_dict(), *parts, error=report.error)
