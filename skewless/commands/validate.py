"""``skewless validate``: the suites of ``expectations.py`` against what is published now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, error_body, table
from skewless.errors import GateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from validation.gate_report import ExpectationResult, GateReport

Names = Annotated[list[str] | None, typer.Argument(metavar="NAMES", help="Views and models; none: all.")]


def validate(names: Names = None, *, repo: Repo = Path(), as_json: Json = False) -> None:
    """Check sources and label tables against their suites; exit 5 if a gate is closed."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        with output.working("checking the sources"):
            reports = project.validate(names or ())
        error = _first_error(reports)
        body = {"success": error is None, "reports": [report.as_dict() for report in reports]}
        output.answer(body | (error_body(error) if error else {}), *map(_shown, reports))
        if error is not None:
            if not as_json:
                typer.echo(f"error: {error_body(error)['error']['message']}", err=True)
            raise typer.Exit(error.exit_code)


def _first_error(reports: Sequence[GateReport]) -> GateError | None:
    try:
        for report in reports:
            report.raise_if_failed()
    except GateError as error:
        return error
    return None


def _shown(report: GateReport) -> RenderableType:
    title = f"{report.name}: {report.n_rows:,} rows, {'passed' if report.success else 'FAILED'}"
    if not report.results:
        return f"{title} (no expectations)\n"
    columns = ("verdict", "expectation", "column", "unexpected", "seen")
    return table(title, columns, [_row(result) for result in report.results])


def _row(result: ExpectationResult) -> tuple[object, ...]:
    verdict = "ok" if result.success else "FAIL" if result.closes else result.severity
    seen = "" if result.success else result.sentence().partition(": ")[2]
    return verdict, result.expectation, result.column, result.unexpected_count, seen
