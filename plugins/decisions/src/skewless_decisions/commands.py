"""Commands on dead letters: ``letters list`` and ``letters send``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from skewless.commands.command import UNCHANGED, CommandGroup, DryRun, argument, command, fail_if, option
from skewless.commands.output import Session, records_table

Letters = Annotated[str | None, argument("NAME", "Name of a sink or a decision stream; default: all.")]
MostLetters = Annotated[int, option("--limit N", "Most dead letters of each to list, the latest.", min=1, max=1000)]
SinkName = Annotated[str, argument("SINK", "Name of a sink.")]
Ids = Annotated[list[str] | None, option("--id ID", "Id of a decision; may be repeated; default: all dead letters.")]


@command(
    "List dead letters.", "--repo my-project", "case-tool --limit 5 --json", name="letters list", section="Operate"
)
def list_letters(session: Session, name: Letters = None, *, limit: MostLetters = 50) -> None:
    """List the decisions that a sink refused for good, and the events that cannot be decided, the latest first."""
    from skewless_decisions.letters import DeadLetters

    found = DeadLetters(session.project).list(name, limit=limit)
    body = found.as_dict()
    shown = [_shown(letter) for letter in body["letters"]]
    table = records_table("dead letters", shown, ("kind", "name", "id", "partition", "position", "reason"))
    hidden = found.total - len(shown)
    more = [f"{hidden:,} more: show them with --limit"] if hidden else []
    session.show(body, table if shown else "no dead letters", *more)


@command(
    "Send dead letters of a sink again.",
    "case-tool --repo my-project",
    "case-tool --id 19ad1f7c2e0-8c81a2f7-1f --dry-run",
    name="letters send",
    section="Operate",
)
def send_letters(session: Session, name: SinkName, *, ids: Ids = None, dry_run: DryRun = False) -> None:
    """Send decisions that a sink refused for good again, with the same ids and bytes.

    Exit with code 5 if the sink refuses one again, or the log does not have it any more.
    """
    from skewless_decisions.letters import DeadLetters

    report = DeadLetters(session.project).send(name, ids=ids or (), dry_run=dry_run)
    body = report.as_dict()
    table = records_table("dead letters", map(_shown, body["letters"]), ("id", "position", "state", "reason"))
    session.show(body, table if report.letters else "no dead letters", *([UNCHANGED] if dry_run else []))
    fail_if(bool(report.refused or report.missing))


def _shown(letter: Mapping[str, Any]) -> dict[str, Any]:
    """Return a letter with its position as an identifier, not as a count."""
    return {**letter, "position": str(letter["position"])}


COMMANDS = CommandGroup("letters", "List dead letters, or send them again.", (list_letters, send_letters))
