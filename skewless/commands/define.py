"""Commands on definitions and sources: ``init``, ``plan``, ``apply`` and ``validate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.command import DryRun, argument, command, fail_if, option
from skewless.commands.output import Part, Session, records_table
from skewless.commands.tables import TextTable
from skewless.contract.errors import DefinitionError
from skewless.contract.readable import duration_text, length_text
from skewless.contract.render import count_text
from skewless.operations.init import TemplateName

if TYPE_CHECKING:
    from skewless.infra.definitions.plans.plan_effects import Build
    from skewless.infra.definitions.plans.planning import PlanReport
    from skewless.validation.gate_report import ExpectationResult, GateReport

Folder = Annotated[Path, argument("DIR", "New or empty folder, relative to --repo.")]
Template = Annotated[
    TemplateName,
    typer.Option(
        help="fraud: a stream, windows, two models, a rollout; delay: windows, a regression; churn: tables, one model;"
        " empty: files without definitions or data."
    ),
]
Expect = Annotated[
    str | None,
    option("--expect HASH", "Plan that may be replaced, whatever that sets back; `none`: only if there is no plan."),
]
Check = Annotated[bool, option("--check", "Exit with code 5 if `apply` would change anything.")]
Names = Annotated[list[str] | None, argument("NAMES", "Views and models; default: all.")]
Everything = Annotated[bool, option("--all", "Check labels again that passed before.")]
Docs = Annotated[Path | None, option("--docs DIR", "Write the results as Data Docs to this folder.")]
Record = Annotated[bool, option("--record", "Record which labels passed, and store Data Docs in the state folder.")]
Suggest = Annotated[bool, option("--suggest", "Suggest a suite from the current data, without a check.")]
Write = Annotated[bool, option("--write", "With --suggest: write expectations.py if it does not exist.")]
_MOST_NAMES = 3


@command("Write a new project from a template.", "my-project", "my-project --template churn")
def init(session: Session, folder: Folder = Path(), *, template: Template = "fraud", dry_run: DryRun = False) -> None:
    """Write a new project from a template: definitions, tests, models, expectations and sample data."""
    from skewless.project import Project

    report = Project.init(session.repo / folder, template=template, dry_run=dry_run)
    title = f"project {report.project!r} {'would be' if dry_run else 'is'} in {report.folder}"
    rows = [(file, report.rows.get(file.removeprefix("data/"))) for file in report.files]
    commands = report.next_commands
    part = TextTable(title, ("file", "rows"), rows)
    session.show({**report.as_dict(), "next": commands}, part, "next:", *(f"  {line}" for line in commands))


@command("Show what `apply` would change.", "--repo my-project", "--check --json")
def plan(session: Session, *, check: Check = False) -> None:
    """Show what `apply` would change, and the effects on views and models."""
    with session.working("compiling the definitions") as project:
        report = project.plan()
    _show(session, report)
    fail_if(check and bool(report.changes))


@command("Apply the definitions.", "--repo my-project", "--dry-run")
def apply(session: Session, *, expect: Expect = None, dry_run: DryRun = False) -> None:
    """Apply the definitions: update Feast's registry, then the compiled plan.

    Exit code 9 if another checkout has applied definitions that this one would set back.
    """
    with session.working("compiling the definitions") as project:
        report = project.apply(expect=expect, dry_run=dry_run)
    _show(session, report)


def _show(session: Session, report: PlanReport) -> None:
    result = "applied" if report.applied else "not applied"
    n = len(report.changes)
    last = f"plan {report.hash}: {n or 'no'} change{'' if n == 1 else 's'}, {result}"
    reverts = [f"sets back {name}, which another checkout has applied" for name in report.reverts]
    session.show(report.as_dict(), *_parts(report), *report.notes, *reverts, last)


def _parts(report: PlanReport) -> Iterator[Part]:
    from skewless.commands.change_text import change_lines

    if report.changes:
        yield "\n".join([f"plan {report.hash}", *(line for item in report.changes for line in change_lines(item))])
    if report.builds:
        builds = [(item.view, *_build_cells(item)) for item in report.builds]
        yield TextTable("views that come online", ("view", "work", "time"), builds)
    if report.retires:
        retired = [
            (item.view, f"{length_text(int(item.hours * 3_600_000_000))} after apply") for item in report.retires
        ]
        yield TextTable("views that go offline, because nothing reads them", ("view", "when"), retired)
    if report.trains:
        trains = [(item.model, item.version, _first_names(item.reasons)) for item in report.trains]
        yield TextTable("models to train, to adopt the changes", ("model", "champion", "because of"), trains)
    if report.serves and report.changes:
        serves = [(item.model, item.version, item.role, _views_text(item.views)) for item in report.serves]
        yield TextTable("versions that are still served", ("model", "version", "role", "reads"), serves)
    if report.breakages:
        yield records_table("served versions that would break", report.breakages)


def _build_cells(item: Build) -> tuple[str, str | None]:
    if item.kind == "catch up":
        return "states are still online, and catch up", None
    if item.kind == "states":
        time = None if item.seconds is None else f"about {duration_text(max(1, round(item.seconds)))}"
        work = (
            f"states, from {count_text(item.rows, 'event')} of the log"
            if item.rows
            else "states: the log has no events yet"
        )
        return work, time
    rows = "rows of a CSV source" if item.rows is None else f"about {count_text(item.rows, 'row')}"
    return f"{rows}, accepted by the next materialization", None


def _views_text(views: Sequence[str]) -> str:
    """Return the views that a version reads; views that are no longer in the plan by name.

    >>> _views_text(["facts", "card_now@3f2a91c0"]), _views_text(["facts"])
    ('card_now@3f2a91c0, and 1 view of the plan', '1 view of the plan')
    """
    old = [view for view in views if "@" in view]
    n = len(views) - len(old)
    current = [f"{n} view{'' if n == 1 else 's'} of the plan"] if n else []
    return ", and ".join([*([_first_names(old)] if old else []), *current]) or "no views"


def _first_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", {more} more" if more > 0 else "")


@command("Check sources and labels against their suites.", "--repo my-project", "card_days fraud --json")
def validate(
    session: Session,
    names: Names = None,
    *,
    everything: Everything = False,
    docs: Docs = None,
    record: Record = False,
    suggest: Suggest = False,
    write: Write = False,
) -> None:
    """Check sources and label tables against their suites; exit with code 5 if a gate is closed."""
    if write and not suggest:
        raise DefinitionError("option --write", "needs --suggest", fix="add --suggest, or remove --write")
    project = session.project
    if suggest:
        with session.working("reading the sources"):
            suggestion = project.suggest(write=write)
        source = suggestion.source if suggestion.now is None else suggestion.diff
        session.show(suggestion.as_dict(), f"{suggestion.path} written" if suggestion.written else source)
        return
    with session.working("checking the sources"):
        report = project.validate(names or (), everything=everything, record=record, docs=docs)
    docs_lines = [] if report.docs is None else [f"Data Docs: {report.docs}"]
    session.end(report.as_dict(), *map(_gate_part, report.reports), *docs_lines, error=report.error)


def _gate_part(report: GateReport) -> Part:
    new = "" if report.since_us is None else "new "
    unknown = f", {report.not_yet_known:,} more without a known label yet" if report.not_yet_known else ""
    title = f"{report.name}, {count_text(report.n_rows, f'{new}row')}{unknown}"
    state = StateCell("passed") if report.success else StateCell("FAILED")
    if not report.results:
        return f"{title}: {state.text} (no expectations)"
    columns = ("verdict", "expectation", "column", "unexpected", "seen")
    return TextTable(title, columns, [_expectation_row(result) for result in report.results], state=state)


def _expectation_row(result: ExpectationResult) -> tuple[object, ...]:
    verdict = (
        StateCell("ok")
        if result.success
        else StateCell("FAIL")
        if result.fails_gate
        else StateCell(result.severity, "warning")
    )
    seen = "" if result.success else result.seen
    return verdict, result.expectation, result.column, result.unexpected_count, seen
