"""``skewless importance``: how much each feature moved a model's answers, window by window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.length import parse_length
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.operations.importance import ImportanceReport

Name = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of the model; none: the only one.")]
Window = Annotated[str, typer.Option("--window", metavar="LENGTH", help="Length of a window, such as 6h or 1d.")]
Windows = Annotated[
    int, typer.Option("--windows", metavar="N", min=1, max=1_000, help="How many, the present one too.")
]
Sample = Annotated[int, typer.Option("--sample", metavar="N", min=1, help="Predictions of each version and window.")]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Chooses which; the same ones again.")]
_MOST_COLUMNS = 6


def importance(
    model: Name = None,
    *,
    window: Window = "1d",
    windows: Windows = 7,
    sample: Sample = 1_000,
    seed: Seed = 0,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Show mean absolute contributions to the margin by feature, version and window."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        length = parse_length(window)
        with output.working("taking predictions apart"):
            report = project.importance(model, window_us=length, windows=windows, sample=sample, seed=seed)
        output.answer(report.as_dict(), *_shown(report))


def _shown(report: ImportanceReport) -> list[RenderableType]:
    from skewless.contract.clock import from_us

    lines: list[RenderableType] = [
        f"version {version}: this kind of model has no contributions" for version in report.unexplained
    ]
    shown = report.windows[-_MOST_COLUMNS:]
    if not shown:
        return [*lines, f"{report.model}: no prediction in these windows"]
    columns = [f"{from_us(part.since_us):%Y-%m-%d %H:%M} {part.version}" for part in shown]
    rows = [(name, *(part.mean.get(name) for part in shown)) for name in shown[-1].mean]
    title = f"{report.model}: mean absolute contribution to the margin"
    sampled = [f"{part.sampled:,} of {part.predictions:,}" for part in shown]
    return [*lines, table(title, ("feature", *columns), [*rows, ("predictions looked at", *sampled)])]
