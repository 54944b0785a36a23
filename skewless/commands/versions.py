"""``skewless versions``: what was trained, how good it was, and how the champion changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.versions import Version, VersionsReport

Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]


def versions(model: Name, *, repo: Repo = Path(), as_json: Json = False) -> None:
    """List a model's versions with aliases, metrics and the gate's last word, and every move of its aliases."""
    with answering(as_json=as_json) as output:
        report = open_project(output, repo).versions(model)
        output.answer(report.as_dict(), *_shown(report))


def _shown(report: VersionsReport) -> list[RenderableType]:
    columns = ("version", "aliases", "trained at", "rows", report.metric, "decision")
    parts = [table(f"versions of {report.model}", columns, [_row(each, report.metric) for each in report.versions])]
    if report.moves:
        moves = [
            (_time(move["at_us"]), move["alias"], move["expect"], move["to"], move["reason"]) for move in report.moves
        ]
        parts.append(table("moves", ("at", "alias", "from", "to", "because"), moves))
    return parts


def _time(at_us: int) -> str:
    from skewless.contract.clock import from_us

    return from_us(at_us).isoformat(timespec="seconds")


def _row(version: Version, metric: str) -> tuple[object, ...]:
    if version.problem:
        return (version.version, ", ".join(version.aliases) or None, None, None, None, version.problem)
    said = None
    if version.decision:
        said = f"{'yes' if version.decision['promote'] else 'no'}: {version.decision['reason']}"
    value = (version.metrics or {}).get(metric)
    return (version.version, ", ".join(version.aliases) or None, version.trained_at, version.rows, value, said)
