"""``skewless validate``: the suites of ``expectations.py`` against what is published now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, answering, error_body, table
from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.project import Project
    from skewless.validation.gate_report import ExpectationResult, GateReport

Names = Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Views and models; none: all.")]
Everything = Annotated[bool, typer.Option("--all", help="Judge labels that passed before again.")]
Docs = Annotated[Path | None, typer.Option("--docs", metavar="DIR", help="Write the results as Data Docs here.")]
PredictionBatch = Annotated[
    bool, typer.Option("--record", help="Remember which labels passed, and keep the Data Docs in the state folder.")
]
Suggest = Annotated[bool, typer.Option("--suggest", help="Check nothing: show suites that the data of now pass.")]
Write = Annotated[bool, typer.Option("--write", help="With --suggest: write expectations.py, if there is none.")]


def validate(
    names: Names = None,
    *,
    everything: Everything = False,
    docs: Docs = None,
    record: PredictionBatch = False,
    suggest: Suggest = False,
    write: Write = False,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Check sources and label tables against their suites; exit 5 if a gate is closed."""
    with answering(as_json=as_json) as output:
        if write and not suggest:
            raise DefinitionError("option --write", "writes a suggestion", fix="add --suggest, or leave it out")
        project = open_project(output, repo)
        if suggest:
            _suggest(project, output, write=write)
            return
        with output.working("checking the sources"):
            report = project.validate(names or (), everything=everything, record=record, docs=docs)
        error = report.error
        linked = [] if report.docs is None else [f"Data Docs: {report.docs}\n"]
        body = report.as_dict() | (error_body(error) if error else {})
        output.answer(body, *map(_shown, report.reports), *linked)
        if error is not None:
            if not as_json:
                typer.echo(f"error: {error_body(error)['error']['message']}", err=True)
            raise typer.Exit(error.exit_code)


def _suggest(project: Project, output: Output, *, write: bool) -> None:
    with output.working("reading the sources"):
        suggestion = project.suggest(write=write)
    source = suggestion.source if suggestion.now is None else suggestion.diff
    output.answer(suggestion.as_dict(), f"{suggestion.path} written\n" if suggestion.written else source)


def _shown(report: GateReport) -> RenderableType:
    new = "" if report.since_us is None else "new "
    title = f"{report.name}: {report.n_rows:,} {new}rows, {'passed' if report.success else 'FAILED'}"
    if not report.results:
        return f"{title} (no expectations)\n"
    columns = ("verdict", "expectation", "column", "unexpected", "seen")
    return table(title, columns, [_row(result) for result in report.results])


def _row(result: ExpectationResult) -> tuple[object, ...]:
    verdict = "ok" if result.success else "FAIL" if result.fails_gate else result.severity
    seen = "" if result.success else result.seen
    return verdict, result.expectation, result.column, result.unexpected_count, seen
