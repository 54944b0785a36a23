"""Commands on the lists of policies: ``lists set`` and ``lists list``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from skewless.commands.command import UNCHANGED, DryRun, argument, command, option
from skewless.commands.output import Session, records_table
from skewless.contract.render import count_text

ListName = Annotated[str, argument("NAME", "Name of the list: letters, digits, hyphens.")]
ValuesFile = Annotated[Path, argument("FILE", "Text file with one value per line.")]
Reason = Annotated[str, option("--reason TEXT", "Why: a sentence, or a link.")]


@command(
    "Write the next version of a list.",
    'stolen_cards stolen.txt --reason "ticket 77" --repo my-project',
    'stolen_cards stolen.txt --reason "ticket 77" --dry-run',
    name="lists set",
)
def set_list(session: Session, name: ListName, values: ValuesFile, *, reason: Reason, dry_run: DryRun = False) -> None:
    """Write the next version of an allow or deny list; running servers read it within two seconds.

    Predictions name the version that their policy read, so old versions stay for replay.
    """
    version = session.project.lists.set(name, values, reason=reason, dry_run=dry_run)
    done = "would have" if dry_run else "has"
    line = f"list {name} {done} {count_text(len(version.values), 'value')} in version {version.number}"
    session.show({"dry_run": dry_run, **version.as_dict()}, line, *([UNCHANGED] if dry_run else []))


@command("List the lists of policies.", "--repo my-project", name="lists list")
def list_lists(session: Session) -> None:
    """List the latest version of each list, with its number of values, time and reason."""
    versions = [version.as_dict() for version in session.project.lists.list()]
    names = ["name", "number", "count", "at", "reason"]
    table = records_table("lists", versions, names) if versions else "the project has no list"
    session.show({"lists": versions}, table)
