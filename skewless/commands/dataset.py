"""``skewless dataset``: entity rows with the features of a service, to Parquet, larger than memory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skewless.commands.options import DryRun, Json, Repo, open_project
from skewless.commands.output import answering, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.training.dataset_files import DatasetReport

Entities = Annotated[
    Path,
    typer.Option("--entities", metavar="FILE", help="Parquet or CSV with key columns and a time; others are kept."),
]
ServiceName = Annotated[
    str, typer.Option("--service", metavar="NAME", help="The feature service to join, or a model: its service.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty folder, or one to go on with.")]
Time = Annotated[str, typer.Option("--time", metavar="COLUMN", help="The column that says when each row is asked.")]
TimeMode = Annotated[
    Literal["knowledge", "event_time"],
    typer.Option("--mode", help="From when on a feature row counts: when it could be known, or when it happened."),
]


def dataset(
    *,
    entities: Entities,
    service: ServiceName,
    out: Out,
    time: Time = "event_timestamp",
    mode: TimeMode = "knowledge",
    repo: Repo = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Join each entity row with what a service would have answered at its time; run again to go on."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.progress(f"joining {entities}") as tell:
            report = project.dataset(
                entities,
                service,
                out,
                mode=mode,
                time=time,
                dry_run=dry_run,
                on_rows=lambda done, total: tell("joining", done, total),
            )
        body = {"dry_run": dry_run, "out": str(out), **asdict(report)}
        output.answer(body, *_shown(report, out, dry_run=dry_run))


def _shown(report: DatasetReport, out: Path, *, dry_run: bool) -> list[RenderableType]:
    verb = "would be written" if dry_run else "written"
    line = f"{report.written:,} of {report.rows:,} rows {verb} to {out}, {report.parts} parts in all"
    rows = [(view, name, count) for view, counts in report.status.items() for name, count in counts.items()]
    shown: list[RenderableType] = (
        [table(f"{len(report.columns)} columns", ("view", "status", "rows"), rows)] if rows else []
    )
    return [*shown, *(report.mode_gap.lines() if report.mode_gap else []), line]
