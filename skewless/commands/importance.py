"""``skewless importance``: feature importance, window by window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.length import parse_length
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Part, command_output, table

if TYPE_CHECKING:
    from skewless.operations.importance import ImportanceReport

Name = Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of a model; default: the only one.")]
Window = Annotated[str, typer.Option("--window", metavar="LENGTH", help="Length of a window, such as 6h or 1d.")]
Windows = Annotated[
    int, typer.Option("--windows", metavar="N", min=1, max=1_000, help="Number of windows, with the current one.")
]
Sample = Annotated[
    int, typer.Option("--sample", metavar="N", min=1, help="Number of predictions of each version and window.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Seed of the sample.")]
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
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo)
        length = parse_length(window)
        with output.working("explaining predictions"):
            report = project.importance(model, window_us=length, windows=windows, sample=sample, seed=seed)
        output.show(report.as_dict(), *_parts(report))


def _parts(report: ImportanceReport) -> list[Part]:
    from skewless.contract.clock import from_us

    lines: list[Part] = [
        f"version {version}: this kind of model has no contributions" for version in report.unexplained
    ]
    windows = report.windows[-_MOST_COLUMNS:]
    if not windows:
        return [*lines, f"{report.model}: no prediction in these windows"]
    columns = [f"{from_us(part.since_us):%Y-%m-%d %H:%MZ} {part.version}" for part in windows]
    rows = [(name, *(part.mean.get(name) for part in windows)) for name in windows[-1].mean]
    title = f"{report.model}: mean absolute contribution to the margin"
    sampled = [f"{part.sampled:,} of {part.predictions:,}" for part in windows]
    return [*lines, table(title, ("feature", *columns), [*rows, ("sampled predictions", *sampled)])]
