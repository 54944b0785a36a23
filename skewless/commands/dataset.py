"""``skewless dataset``: entity rows joined with the features of a service, as Parquet files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skewless.commands.options import DryRun, Engine, Json, Repo, open_project
from skewless.commands.output import Part, command_output, table
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless.training.dataset_files import DatasetReport

Entities = Annotated[
    Path,
    typer.Option("--entities", metavar="FILE", help="Parquet or CSV with key columns and a time; more columns stay."),
]
ServiceName = Annotated[
    str, typer.Option("--service", metavar="NAME", help="Feature service to join, or a model for its service.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="New or empty folder, or an unfinished dataset.")]
Time = Annotated[str, typer.Option("--time", metavar="COLUMN", help="Column with the time of each row.")]
TimeMode = Annotated[
    Literal["knowledge", "event_time"],
    typer.Option("--mode", help="Join by the time when a feature row was known, or by its event time."),
]


def dataset(
    *,
    entities: Entities,
    service: ServiceName,
    out: Out,
    time: Time = "event_timestamp",
    mode: TimeMode = "knowledge",
    repo: Repo = Path(),
    engine: Engine = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Join each entity row with the features that were known at its time, larger than memory.

    Run the command again to continue after an interruption.
    """
    with command_output(as_json=as_json) as output:
        project = open_project(output, repo, engine=engine)
        with output.progress(f"joining {entities}") as on_progress:
            project.on_progress = on_progress
            report = project.dataset(
                entities,
                service,
                out,
                mode=mode,
                time=time,
                dry_run=dry_run,
                on_rows=lambda done, total: on_progress("joining", done, total),
            )
        body = {"dry_run": dry_run, "out": str(out), **asdict(report)}
        output.show(body, *_parts(report, out, dry_run=dry_run))


def _parts(report: DatasetReport, out: Path, *, dry_run: bool) -> list[Part]:
    result = "would be written" if dry_run else "written"
    line = f"{report.written:,} of {count_text(report.rows, 'row')} {result} to {out}, {report.parts} parts in all"
    rows = [(view, name, count) for view, counts in report.status.items() for name, count in counts.items()]
    parts = [table(f"{len(report.columns)} columns", ("view", "status", "rows"), rows)] if rows else []
    return [*parts, *(report.mode_gap.lines() if report.mode_gap else []), line]
