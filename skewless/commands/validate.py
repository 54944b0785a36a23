"""``skewless validate``: the suites of ``expectations.py`` against what is published now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, answering, error_body, table
from skewless.contract.errors import DefinitionError, GateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.project import Project
    from skewless.validation.gate_report import ExpectationResult, GateReport

Names = Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Views and models; none: all.")]
Everything = Annotated[bool, typer.Option("--all", help="Judge labels that passed before again.")]
Docs = Annotated[Path | None, typer.Option("--docs", metavar="DIR", help="Write the results as Data Docs here.")]
Record = Annotated[
    bool, typer.Option("--record", help="Remember which labels passed, and keep the Data Docs in the state folder.")
]
Suggest = Annotated[bool, typer.Option("--suggest", help="Check nothing: show suites that the data of now pass.")]
Write = Annotated[bool, typer.Option("--write", help="With --suggest: write expectations.py, if there is none.")]


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
    """Check sources and label tables against their suites; exit 5 if a gate is closed."""
    with answering(as_json=as_json) as output:
        if write and not suggest:
            raise DefinitionError("option --write", "writes a suggestion", fix="add --suggest, or leave it out")
        project = open_project(output, repo)
        if suggest:
            _suggest(project, output, write=write)
            return
        with output.working("checking the sources"):
            reports = project.validate(names or (), everything=everything, remember=record)
        error = _first_error(reports)
        body = {"success": error is None, "reports": [report.as_dict() for report in reports]}
        index = _write_docs(project, reports, docs) if docs or record else None
        linked = {} if index is None else {"docs": str(index)}
        shown = [*map(_shown, reports), *([] if index is None else [f"Data Docs: {index}\n"])]
        output.answer(body | linked | (error_body(error) if error else {}), *shown)
        if error is not None:
            if not as_json:
                typer.echo(f"error: {error_body(error)['error']['message']}", err=True)
            raise typer.Exit(error.exit_code)


def _suggest(project: Project, output: Output, *, write: bool) -> None:
    from skewless.operations.suggestion import suggestion

    with output.working("reading the sources"):
        found = suggestion(project)
    written = write and found.write()
    n = {name: len(suite) for name, suite in found.suites.items()}
    body = {"path": str(found.path), "written": written, "expectations": n, "source": found.source, "diff": found.diff}
    output.answer(body, f"{found.path} written\n" if written else found.source if found.now is None else found.diff)


def _write_docs(project: Project, reports: Sequence[GateReport], docs: Path | None) -> Path:
    from skewless.validation.data_docs import data_docs_folder, write_data_docs

    folder = docs or data_docs_folder(project.state)
    now_us = project.clock.now_us()
    return write_data_docs(reports, folder.resolve(), site=project.applied.plan.project, now_us=now_us)


def _first_error(reports: Sequence[GateReport]) -> GateError | None:
    try:
        for report in reports:
            report.raise_if_failed()
    except GateError as error:
        return error
    return None


def _shown(report: GateReport) -> RenderableType:
    new = "" if report.since_us is None else "new "
    title = f"{report.name}: {report.n_rows:,} {new}rows, {'passed' if report.success else 'FAILED'}"
    if not report.results:
        return f"{title} (no expectations)\n"
    columns = ("verdict", "expectation", "column", "unexpected", "seen")
    return table(title, columns, [_row(result) for result in report.results])


def _row(result: ExpectationResult) -> tuple[object, ...]:
    verdict = "ok" if result.success else "FAIL" if result.closes else result.severity
    seen = "" if result.success else result.seen
    return verdict, result.expectation, result.column, result.unexpected_count, seen
