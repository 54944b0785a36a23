"""Commands on rows and events: ``materialize``, ``import``, ``stream``, ``backfill``, ``get`` and ``dataset``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skewless.commands.cells import label, labelled_cell
from skewless.commands.command import UNCHANGED, DryRun, argument, command, option
from skewless.commands.output import Part, Session, records_table
from skewless.commands.tables import TextTable
from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.readable import time_text
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless.infra.ingest.streams.importing import ImportResult
    from skewless.infra.ingest.streams.source_counts import SourceCounts
    from skewless.operations.data.entity_values import EntityView
    from skewless.training.dataset_files import DatasetReport

NoCheck = Annotated[bool, option("--no-check", "Accept new rows without a check of their suites.")]
Sources = Annotated[list[str] | None, argument("SOURCE", "Event sources; default: all.")]
Replay = Annotated[
    Path | None, option("--replay FILES", "Read Parquet files (a folder or a glob) instead of the stream.")
]
Speed = Annotated[float | None, option("--speed X", "With --replay: factor of real time; default: no pauses.", min=0.0)]
Idle = Annotated[bool, option("--until-idle", "Stop when the stream has no more events.")]
MetricsPort = Annotated[
    int | None, option("--metrics-port PORT", "Serve Prometheus metrics on this port.", min=0, max=65535)
]
LatestViews = Annotated[list[str] | None, argument("VIEW", "Latest-value views; default: all.")]
BuiltViews = Annotated[list[str] | None, argument("VIEW", "Views; default: all windowed views.")]
ViewOrService = Annotated[str, argument("VIEW|SERVICE", "Name of a feature view or a feature service.")]
Key = Annotated[list[str] | None, option("--key NAME=VALUE", "Value of a join key; once for each key.")]
AsOf = Annotated[
    str | None, option("--as-of TIME", "Show the log's values at this time too (ISO 8601, or microseconds).")
]
Entities = Annotated[Path, option("--entities FILE", "Parquet or CSV with key columns and a time; more columns stay.")]
ServiceName = Annotated[str, option("--service NAME", "Feature service to join, or a model for its service.")]
Out = Annotated[Path, option("--out DIR", "New or empty folder, or an unfinished dataset.")]
Time = Annotated[str, option("--time COLUMN", "Column with the time of each row.")]
TimeMode = Annotated[
    Literal["knowledge", "event_time"],
    option("--mode", "Join by the time when a feature row was known, or by its event time."),
]
_HINTS = {
    "applied": "these events count as known from now on: training in knowledge time does not see them before",
    "none": "`skewless stream` or `skewless backfill` builds window states from them",
    "behind": "the online store is unavailable: `skewless stream` or the next import applies them later",
}
_COUNTS = ("accepted", "rejected", "duplicates", "present")
_SIDES = {"online": "now online", "knowledge": "known then", "event_time": "event time"}
_FACTS = ("status", "age_s", "watermark_age_s", "event_time", "created_time", "run", "position")


@command("Write new source rows to the log and the online store.", "--repo my-project", "--dry-run", has_engine=True)
def materialize(
    session: Session, views: LatestViews = None, *, no_check: NoCheck = False, dry_run: DryRun = False
) -> None:
    """Append new source rows to the log, and write the latest row of each entity to the online store."""
    project = session.project
    if dry_run:
        with session.working("comparing the sources with the log"):
            would = project.pending(views or ())
        part = records_table("would be accepted", would, sums=("accepted", "rejected", "entities"))
        session.show({"dry_run": True, "views": [asdict(pending) for pending in would]}, part, UNCHANGED)
        return
    from skewless.infra.ingest.materialization.run_report import totals

    with session.progress("materializing") as on_progress:
        reports = project.materialize(
            views or (),
            check=not no_check,
            on_step=lambda step: on_progress(f"{step.view}: {step.doing}", step.done, step.total),
        )
    bodies, sums = [asdict(report) for report in reports], totals(reports)
    part = records_table("rows", bodies, ("view", *sums), sums=[*sums])
    stale = [f"{report.view} was not updated: {report.problem}" for report in reports if report.problem]
    reasons = [(report.view, reason, n) for report in reports for reason, n in report.left_out.items()]
    skipped = [TextTable("rows skipped by the online store", ("view", "reason", "rows"), reasons)] if reasons else []
    session.show({"dry_run": False, "views": bodies, "totals": dict(sums)}, part, *skipped, *stale)


@command("Append the history of event sources to the log.", "--repo my-project", "arrivals --dry-run", name="import")
def import_events(session: Session, sources: Sources = None, *, dry_run: DryRun = False) -> None:
    """Append the history of event sources, from the files of their batch_source, to the log."""
    project = session.project
    with session.progress("importing") as on_progress:
        reports = project.import_events(
            sources or (), dry_run=dry_run, on_rows=lambda file, rows: on_progress(file, rows, None)
        )
    if dry_run:
        files = [{"source": report.source, **asdict(file)} for report in reports for file in report.by_file]
        part = records_table("would be imported", files, sums=_COUNTS)
        session.show({"dry_run": True, "files": files}, part, UNCHANGED)
    else:
        _show_imports(session, reports)


def _show_imports(session: Session, reports: Sequence[ImportResult]) -> None:
    bodies = [report.as_dict() for report in reports]
    part = records_table("events", bodies, sums=("files", *_COUNTS))
    hints = [
        hint
        for states, hint in _HINTS.items()
        if any(body["states"] == states and (body["files"] or states == "behind") for body in bodies)
    ]
    session.show({"dry_run": False, "sources": bodies}, part, *hints)


@command(
    "Ingest events into the log and the online store.",
    "--repo my-project",
    "arrivals --replay data/arrivals --until-idle",
)
def stream(
    session: Session,
    sources: Sources = None,
    *,
    replay: Replay = None,
    speed: Speed = None,
    until_idle: Idle = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Ingest events into the log and the online store, until SIGTERM or Ctrl-C.

    The process can be killed at any time: no event is lost or counted twice.
    """
    from skewless.infra.platform.telemetry.logger import set_log_level

    set_log_level("warning" if until_idle else "info")
    project = session.project
    is_started = threading.Event()

    def on_counts(counts: Sequence[SourceCounts]) -> None:
        if not (session.as_json or is_started.is_set()):
            names = ", ".join(item.source for item in counts)
            typer.echo(f"ingesting events of {names}, stop with Ctrl-C", err=True)
        is_started.set()
        show(" | ".join(_counts_line(item) for item in counts))

    with session.line() as show, _stop_on_signals() as stop:
        counts = project.stream(
            sources or (),
            replay=replay,
            speed=speed,
            until_idle=until_idle,
            metrics_port=metrics_port,
            stop=stop,
            on_counts=on_counts,
        )
    bodies = [item.as_dict() for item in counts]
    session.show({"sources": bodies}, *([records_table("events", bodies)] if bodies else []))


def _counts_line(counts: SourceCounts) -> str:
    """Return the live line of one source."""
    lag = "?" if counts.lag is None else f"{counts.lag:,}"
    text = (
        f"{counts.source}: {count_text(counts.accepted, 'event')}, {counts.rate():,.0f}/s, lag {lag}, "
        f"watermark {time_text(counts.watermark_us) or '-'}, "
        f"{counts.late:,} late, {counts.duplicates:,} duplicate, {counts.rejected:,} quarantined"
    )
    return text if counts.trouble is None else f"{text}; waiting: {counts.trouble}"


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; the old handlers return at the end."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


@command("Build online states from the log.", "carrier_now --repo my-project", "--dry-run", has_engine=True)
def backfill(session: Session, views: BuiltViews = None, *, dry_run: DryRun = False) -> None:
    """Build the online states of views from the log.

    Servers read the current states of a windowed view until the new ones are complete. The stream continues meanwhile.
    A view of latest values is unavailable until its rows are written again.
    """
    project = session.project
    with session.progress("reading the log") as on_progress:
        results = project.backfill(
            views or (), dry_run=dry_run, on_rows=lambda view, done: on_progress(view, done or 0, None)
        )
    title = "would be built" if dry_run else "built from the log"
    part = records_table(title, results, ("view", "generation", "states", "events"), sums=("states", "events"))
    body = {"dry_run": dry_run, "views": [asdict(result) for result in results]}
    session.show(body, part, *([UNCHANGED] if dry_run else []))


@command(
    "Show the features of one entity and their origin.",
    "card_days --key card_id=9007199254740993 --repo my-project",
    "fraud_features --key card_id=9007199254740993 --key shop_id=s1 --as-of 2025-01-31T12:00:00Z",
    is_short=True,
)
def get(session: Session, name: ViewOrService, *, key: Key = None, as_of: AsOf = None) -> None:
    """Show the features of one entity in the online store, with status, age and origin."""
    keys = dict(item.partition("=")[::2] for item in key or ())
    as_of_us = None if as_of is None else _parse_time(as_of)
    values = session.project.get(name, keys, as_of_us=as_of_us)
    session.show(values.as_dict(), *map(_entity_table, values.views))


def _parse_time(text: str) -> int:
    from skewless.contract.columns import Column
    from skewless.contract.dtypes import DType
    from skewless.contract.request import parse_field

    column = Column(name="--as-of", dtype=DType.TIMESTAMP)
    try:
        value = parse_field(column, int(text) if text.lstrip("-").isdigit() else text)
    except SkewlessError as error:
        raise RequestError("option --as-of", "is not a time", value=text, fix=error.fix) from error
    return int(str(value))


def _entity_table(view: EntityView) -> TextTable:
    sides = view.sides.values()
    rows = [(label(fact), *(_fact(fact, getattr(side, fact)) for side in sides)) for fact in _FACTS]
    rows += [(name, *(_value(side.features[name]) for side in sides)) for name in view.sides["online"].features]
    return TextTable(view.view, ("", *(_SIDES[side] for side in view.sides)), rows)


def _fact(name: str, value: object) -> object:
    return str(value) if isinstance(value, int) else labelled_cell(name, value)


def _value(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else repr(value)


@command(
    "Write a training set that is larger than memory.",
    "--entities entities.parquet --service fraud --out rows",
    "--entities entities.csv --service fraud --out rows --time event_time --dry-run",
    has_engine=True,
)
def dataset(
    session: Session,
    *,
    entities: Entities,
    service: ServiceName,
    out: Out,
    time: Time = "event_timestamp",
    mode: TimeMode = "knowledge",
    dry_run: DryRun = False,
) -> None:
    """Join each entity row with the features that were known at its time, larger than memory.

    Run the command again to continue after an interruption.
    """
    project = session.project
    with session.progress(f"joining {entities}") as on_progress:
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
    session.show(body, *_dataset_parts(report, out, dry_run=dry_run))


def _dataset_parts(report: DatasetReport, out: Path, *, dry_run: bool) -> list[Part]:
    result = "would be written" if dry_run else "written"
    all_parts = f"{count_text(report.parts, 'part')} in all"
    line = f"{report.written:,} of {count_text(report.rows, 'row')} {result} to {out}, {all_parts}"
    rows = [(view, name, count) for view, counts in report.status.items() for name, count in counts.items()]
    parts = [TextTable(f"{len(report.columns)} columns", ("view", "status", "rows"), rows)] if rows else []
    return [*parts, *(report.mode_gap.lines() if report.mode_gap else []), line]
