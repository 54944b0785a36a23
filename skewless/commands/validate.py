"""``skewless validate``: sources and label tables, checked against the suites of ``expectations.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.cells import StateCell
from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, Part, command_output, error_body, show_error, table
from skewless.contract.errors import DefinitionError
from skewless.contract.render import count_text

if TYPE_CHECKING:
    from skewless.project import Project
    from skewless.validation.gate_report import ExpectationResult, GateReport

Names = Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Views and models; default: all.")]
Everything = Annotated[bool, typer.Option("--all", help="Check labels again that passed before.")]
Docs = Annotated[
    Path | None, typer.Option("--docs", metavar="DIR", help="Write the results as Data Docs to this folder.")
]
Record = Annotated[
    bool, typer.Option("--record", help="Record which labels passed, and store Data Docs in the state folder.")
]
Suggest = Annotated[bool, typer.Option("--suggest", help="Suggest a suite from the current data, without a check.")]
Write = Annotated[bool, typer.Option("--write", help="With --suggest: write expectations.py if it does not exist.")]


def validate(
    names: Names = None,
    *,
    everything: Everything = False,
    docs: Docs = None,
    record: Record = False,
    suggest: Suggest = False,
    write: Write = False,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Check sources and label tables against their suites; exit with code 5 if a gate is closed."""
    with command_output(as_json=as_json) as output:
        if write and not suggest:
            raise DefinitionError("option --write", "needs --suggest", fix="add --suggest, or remove --write")
        project = open_project(output, repo)
        if suggest:
            _suggest(project, output, write=write)
            return
        with output.working("checking the sources"):
            report = project.validate(names or (), everything=everything, record=record, docs=docs)
        error = report.error
        docs_lines = [] if report.docs is None else [f"Data Docs: {report.docs}"]
        body = report.as_dict() | (error_body(error) if error else {})
        output.show(body, *map(_part, report.reports), *docs_lines)
        if error is not None:
            if not as_json:
                show_error(error_body(error)["error"]["message"])
            raise typer.Exit(error.exit_code)


def _suggest(project: Project, output: Output, *, write: bool) -> None:
    with output.working("reading the sources"):
        suggestion = project.suggest(write=write)
    source = suggestion.source if suggestion.now is None else suggestion.diff
    output.show(suggestion.as_dict(), f"{suggestion.path} written" if suggestion.written else source)


def _part(report: GateReport) -> Part:
    new = "" if report.since_us is None else "new "
    unknown = f", {report.not_yet_known:,} more without a known label yet" if report.not_yet_known else ""
    title = f"{report.name}, {count_text(report.n_rows, f'{new}row')}{unknown}"
    state = StateCell("passed") if report.success else StateCell("FAILED")
    if not report.results:
        return f"{title}: {state.text} (no expectations)"
    columns = ("verdict", "expectation", "column", "unexpected", "seen")
    return table(title, columns, [_row(result) for result in report.results], state=state)


def _row(result: ExpectationResult) -> tuple[object, ...]:
    verdict = (
        StateCell("ok")
        if result.success
        else StateCell("FAIL")
        if result.fails_gate
        else StateCell(result.severity, "warning")
    )
    seen = "" if result.success else result.seen
    return verdict, result.expectation, result.column, result.unexpected_count, seen
