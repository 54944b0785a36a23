"""The page about refused data, and how corrected data is accepted."""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.errors import ConflictError, GateError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import count_text
from skewless.infra.ingest.materialization.skipped_rows import SkippedRows, read_last_skipped
from skewless.project import Project
from skewless_control_room.actions import Action, Values
from skewless_control_room.page import Known, Page, Part, Query, read_part
from skewless_control_room.refused import (
    RefusedBatch,
    RefusedLog,
    RefusedRow,
    list_batches,
    list_refused,
    sample_batch,
    sample_refused,
)

_MOST_LOGS, _MOST_UNUSUAL, _MOST_ROWS = 50, 20, 10
_MOST_BATCHES, _MOST_SKIPPED, _MOST_RUNS, _MOST_FILES = 20, 200, 5, 10


@dataclass(frozen=True, kw_only=True)
class RefusedLogs(PlainRecord):
    """The logs that refused rows.

    Args:
        shown: by kind and name, each with its five most frequent reasons.
        total: number of all of them.
        next: log after which the next page begins; None: this is the last one.
        unusual: logs that refused more rows today than usual, each with its name; at most 20.
        histories: event sources with files that can be imported again.
        views: needed latest-value views, whose sources can be read again.
    """

    shown: list[RefusedLog]
    total: int
    next: str | None
    unusual: dict[str, str]
    histories: list[str]
    views: list[str]


@dataclass(frozen=True, kw_only=True)
class RefusedSample(PlainRecord):
    """Refused rows of one log or of one rejected batch.

    Args:
        name: of the log, or view and batch; empty: nothing was refused.
    """

    name: str
    rows: list[RefusedRow]


@dataclass(frozen=True, kw_only=True)
class RefusedBatches(PlainRecord):
    """The batches that a gate rejected on this machine; ``total`` is the number of all of them."""

    shown: list[RefusedBatch]
    total: int


@dataclass(frozen=True, kw_only=True)
class Skipped(PlainRecord):
    """The rows that the online store skipped; ``total`` is the number of all views and reasons."""

    shown: list[SkippedRows]
    total: int


@dataclass(frozen=True, kw_only=True)
class RefusedRun(PlainRecord):
    """A run of the scheduler that ended because rows were refused."""

    run: str
    ended_us: int | None
    error: str


@dataclass(frozen=True, kw_only=True)
class Refused(PlainRecord):
    """The answer of the page."""

    logs: Part[RefusedLogs]
    sample: Part[RefusedSample]
    batches: Part[RefusedBatches]
    batch_sample: Part[RefusedSample]
    runs: Part[list[RefusedRun]]
    skipped: Part[Skipped]


def read_refused(project: Project, query: Query) -> Refused:
    """Return the refused data of all views and event sources, with rows of one log and of one batch."""
    log, batch, after = query.text("log"), query.text("batch"), query.text("after")
    logs = read_part(lambda: _logs(project, after))
    batches = read_part(lambda: _batches(project))
    chosen = log
    if not log and isinstance(logs, Known):
        chosen = max(logs.value.shown, key=_last_day).log if logs.value.shown else ""
    return Refused(
        logs=logs,
        sample=read_part(lambda: _sample(project, chosen)),
        batches=batches,
        batch_sample=read_part(lambda: _batch_sample(project, batches, batch)),
        runs=read_part(lambda: _runs(project)),
        skipped=read_part(lambda: _skipped(project)),
    )


def _logs(project: Project, after: str) -> RefusedLogs:
    logs, needed = list_refused(project), project.needed  # its read compares the moves of all models
    first = next((i + 1 for i, item in enumerate(logs) if item.log == after), 0)
    shown = logs[first : first + _MOST_LOGS]
    return RefusedLogs(
        shown=shown,
        total=len(logs),
        next=shown[-1].log if first + len(shown) < len(logs) else None,
        unusual={item.log: item.name for item in [item for item in logs if item.is_unusual][:_MOST_UNUSUAL]},
        histories=[source.name for source in needed.plan.sources if source.history is not None],
        views=[needed.label(view) for view in needed.plan.views],
    )


def _last_day(log: RefusedLog) -> tuple[int, str]:
    return max(reason.last_us for reason in log.reasons), log.name


def _sample(project: Project, log: str) -> RefusedSample:
    return RefusedSample(name=log, rows=sample_refused(project, log, most=_MOST_ROWS) if log else [])


def _batches(project: Project) -> RefusedBatches:
    shown, total = list_batches(project, most=_MOST_BATCHES)
    return RefusedBatches(shown=shown, total=total)


def _batch_sample(project: Project, batches: Part[RefusedBatches], name: str) -> RefusedSample:
    """Return rows of the named batch, or of the latest one; only listed batches are read."""
    shown = batches.value.shown if isinstance(batches, Known) else []
    chosen = next((item for item in shown if item.batch == name or not name), None)
    if chosen is None:
        return RefusedSample(name="", rows=[])
    return RefusedSample(name=f"{chosen.view} {chosen.batch}", rows=sample_batch(project, chosen))


def _runs(project: Project) -> list[RefusedRun]:
    runs = project.runs.list("materialize", state="refused", limit=_MOST_RUNS)[::-1]
    return [
        RefusedRun(run=str(run.id), ended_us=run.ended_us, error=run.error or "the run states no reason")
        for run in runs
    ]


def _skipped(project: Project) -> Skipped:
    skipped = read_last_skipped(project.state)
    return Skipped(shown=list(skipped[:_MOST_SKIPPED]), total=len(skipped))


def _preview_rows(project: Project, values: Values) -> list[str]:
    view = values["view"]
    (pending,) = project.pending([view])
    accepted, entities = count_text(pending.accepted, "row"), count_text(pending.entities, "entity", "entities")
    sentences = [
        f"The source of view {view} is read again as it is now; a row that is corrected there counts as a new row.",
        f"{accepted} would be accepted, for {entities}.",
        f"{count_text(pending.rejected, 'row')} would be rejected, and stay in the log with the reason.",
    ]
    if view in {item.name for item in project.applied.plan.views}:
        (report,) = project.validate([view]).reports
        failed = [result.sentence() for result in report.failed if result.fails_gate]
        sentences += [f"The gate would reject the rows, if they are like the whole source: {text}" for text in failed]
        if not failed:
            sentences.append(f"All {count_text(report.n_rows, 'published row')} of the source pass the view's suite.")
    return [*sentences, "This process does the work, which takes as long as the command."]


def _accept_rows(project: Project, values: Values) -> str:
    try:
        (report,) = project.materialize([values["view"]])
    except GateError as error:
        raise ConflictError(error.thing, error.problem, value=error.value, fix=error.fix) from error
    if report.problem:
        raise ConflictError(f"view {report.view!r}", f"was not updated: {report.problem}", fix="correct its source")
    return (
        f"View {report.view}: {count_text(report.accepted, 'row')} accepted, {report.rejected:,} rejected, "
        f"{report.written:,} written to the online store."
    )


def _preview_events(project: Project, values: Values) -> list[str]:
    (report,) = project.import_events([values["source"]], dry_run=True)
    files = [
        f"File {item.file}: {count_text(item.accepted, 'event')} would be accepted, {item.rejected:,} rejected, "
        f"{item.duplicates:,} skipped as duplicates; {item.present:,} are in the log already."
        for item in report.by_file[:_MOST_FILES]
    ]
    more = len(report.by_file) - len(files)
    return [
        f"The files of event source {report.source} are read again.",
        "A refused event does not use its id, so a corrected event with the same id is accepted.",
        *files,
        *([f"{count_text(more, 'more file')} would be read."] if more else []),
    ]


def _accept_events(project: Project, values: Values) -> str:
    (report,) = project.import_events([values["source"]])
    return (
        f"Event source {report.source}: {count_text(report.accepted, 'event')} accepted, {report.rejected:,} rejected, "
        f"{report.duplicates:,} duplicates."
    )


PAGE = Page(
    path="/refused",
    question="Which data was refused?",
    template="refused.html",
    read=read_refused,
    menu="Refused",
    is_personal=True,
)
ACTIONS = (
    Action(
        name="accept-rows",
        title="Accept corrected rows",
        right="operate",
        fields=("view",),
        preview=_preview_rows,
        run=_accept_rows,
        command="skewless materialize {view}",
    ),
    Action(
        name="accept-events",
        title="Import corrected events",
        right="operate",
        fields=("source",),
        preview=_preview_events,
        run=_accept_events,
        command="skewless import {source}",
    ),
)
