"""``skewless predict``: rows given on the command line, or a file to a file; as the server would answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from skewless.commands.options import Json, Model, Repo, open_project
from skewless.commands.output import Output, answering, table
from skewless.contract.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from skewless.project import Project

_OWN = ("id", "score", "t_us", "version")
_ENDINGS = {".parquet", ".csv"}

Row = Annotated[
    str | None, typer.Option("--row", metavar="JSON", help="One row, or a list of rows; '-' reads them from stdin.")
]
Source = Annotated[Path | None, typer.Option("--in", metavar="FILE", help="Parquet or CSV file with one row per line.")]
Target = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Parquet or CSV file for the answers.")]


def predict(
    model: Model = None,
    *,
    row: Row = None,
    source: Source = None,
    target: Target = None,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Predict from entity ids and request fields: one row, or every row of a file."""
    with answering(as_json=as_json) as output:
        if row is not None and source is None and target is None:
            _rows(_applied(output, repo), model, read_rows(row), output)
        elif row is None and source is not None and target is not None:
            _file(_applied(output, repo), model, (source, target), output)
        else:
            raise RequestError(
                "options of predict", "name no input, or two", fix="give --row JSON, or both --in FILE and --out FILE"
            )


def read_rows(text: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON object, or of a list of them; '-' reads stdin.

    >>> read_rows('{"card_id": 7}')
    [{'card_id': 7}]

    Raises:
        RequestError: it is not JSON, or no row.
    """
    try:
        rows = json.loads(sys.stdin.read() if text == "-" else text, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            "option --row", f"is not JSON: {error}", fix="""quote it: --row '{"name": "value"}'"""
        ) from error
    return rows if isinstance(rows, list) else [rows]


def answer_body(answer: pa.Table) -> dict[str, Any]:
    """Return predictions as plain values, in the shape of the server's reply with features."""
    predictions = []
    for row in answer.to_pylist():
        own = {name: row.pop(name) for name in _OWN}
        predictions.append({"id": own["id"], "score": own["score"], "features": row})
    return {"version": own["version"], "t_us": own["t_us"], "predictions": predictions}


def _applied(output: Output, repo: Path) -> Project:
    """Return the project; without a plan in force it fails here, before a Redis is started."""
    project = open_project(output, repo)
    _ = project.applied
    return project


def _rows(project: Project, model: str | None, rows: list[dict[str, Any]], output: Output) -> None:
    body = answer_body(project.predict(model, rows))
    scores = [(item["id"], repr(item["score"])) for item in body["predictions"]]
    parts = [table(f"version {body['version']}", ("id", "score"), scores)]
    if len(rows) == 1:
        features = body["predictions"][0]["features"]
        parts.append(
            table("what the model saw", ("feature", "value"), [(name, repr(value)) for name, value in features.items()])
        )
    output.answer(({"model": model} if model else {}) | body, *parts)


def _file(project: Project, model: str | None, files: tuple[Path, Path], output: Output) -> None:
    source, target = files
    for option, path in (("--in", source), ("--out", target)):
        if path.suffix not in _ENDINGS:
            raise RequestError(
                f"option {option}", "is neither Parquet nor CSV", value=str(path), fix="end it in .parquet or .csv"
            )
    with output.working(f"predicting {source}"):
        n = project.predict_file(model, source, target)
    output.answer({"rows": n, "out": str(target)}, f"{n:,} rows predicted to {target}")


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError("option --row", "is not JSON", value=name, fix="send null where a value is unknown")
