"""``skewless versions``: the versions of a model, and the changes of its aliases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, table
from skewless.operations.readable import time_text

if TYPE_CHECKING:
    from skewless.operations.versions import Version, VersionsReport

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]


def versions(model: Name, *, repo: Repo = Path(), as_json: Json = False) -> None:
    """List a model's versions with aliases, metrics and last decision, and all changes of its aliases."""
    with command_output(as_json=as_json, is_short=True) as output:
        report = open_project(output, repo).versions(model)
        output.show(report.as_dict(), *_parts(report))


def _parts(report: VersionsReport) -> list[Part]:
    columns = ("version", "aliases", "trained at", "plan hash", "rows", report.metric, "decision")
    parts: list[Part] = [
        table(f"versions of {report.model}", columns, [_row(each, report.metric) for each in report.versions])
    ]
    if report.moves:
        moves = [
            (time_text(move["at_us"]), move["alias"], move["expect"], move["to"], move["reason"])
            for move in report.moves
        ]
        parts.append(table("alias changes", ("at", "alias", "from", "to", "reason"), moves))
    return parts


def _row(version: Version, metric: str) -> tuple[object, ...]:
    if version.problem:
        return (version.version, ", ".join(version.aliases) or None, None, None, None, None, version.problem)
    decision = None
    if version.decision:
        decision = f"{'promoted' if version.decision['promote'] else 'not promoted'}: {version.decision['reason']}"
    value = (version.metrics or {}).get(metric)
    return (
        version.version,
        ", ".join(version.aliases) or None,
        time_text(version.trained_at),
        version.plan_hash,
        version.rows,
        value,
        decision,
    )
