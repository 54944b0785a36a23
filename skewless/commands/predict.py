"""``skewless predict``: predictions without a server, equal bit for bit to the server's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from skewless.commands.options import Json, Model, Repo, open_project
from skewless.commands.output import Output, command_output, table
from skewless.contract.errors import RequestError
from skewless.contract.render import count_text

if TYPE_CHECKING:
    import pyarrow as pa

    from skewless.project import Project

_OWN = ("id", "score", "t_us", "version")
_ENDINGS = {".parquet", ".csv"}

Row = Annotated[str | None, typer.Option("--row", metavar="JSON", help="One row, or a list of rows; '-' reads stdin.")]
Source = Annotated[Path | None, typer.Option("--in", metavar="FILE", help="Parquet or CSV file of rows.")]
Target = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Parquet or CSV file for the predictions.")]


def predict(
    model: Model = None,
    *,
    row: Row = None,
    source: Source = None,
    target: Target = None,
    repo: Repo = Path(),
    as_json: Json = False,
) -> None:
    """Predict rows of entity keys and request fields, or all rows of a file."""
    with command_output(as_json=as_json, is_short=source is None) as output:
        if row is not None and source is None and target is None:
            _predict_rows(_open_applied(output, repo), model, read_rows(row), output)
        elif row is None and source is not None and target is not None:
            _predict_file(_open_applied(output, repo), model, (source, target), output)
        else:
            raise RequestError(
                "options of predict",
                "name no input, or two inputs",
                fix="give --row JSON, or both --in FILE and --out FILE",
            )


def read_rows(text: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON object, or of a list of them; '-' reads stdin.

    >>> read_rows('{"card_id": 7}')
    [{'card_id': 7}]

    Raises:
        RequestError: the text is not JSON.
    """
    try:
        rows = json.loads(sys.stdin.read() if text == "-" else text, parse_constant=_reject_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            "option --row", f"is not JSON: {error}", fix="""quote it: --row '{"name": "value"}'"""
        ) from error
    return rows if isinstance(rows, list) else [rows]


def reply_body(predictions: pa.Table) -> dict[str, Any]:
    """Return predictions as plain values, in the format of the server's reply with features."""
    bodies = []
    for row in predictions.to_pylist():
        own = {name: row.pop(name) for name in _OWN}
        bodies.append({"id": own["id"], "score": own["score"], "features": row})
    return {"version": own["version"], "t_us": own["t_us"], "predictions": bodies}


def _open_applied(output: Output, repo: Path) -> Project:
    """Return the project; without an applied plan it fails here, before a Redis server starts."""
    project = open_project(output, repo)
    _ = project.applied
    return project


def _predict_rows(project: Project, model: str | None, rows: list[dict[str, Any]], output: Output) -> None:
    body = reply_body(project.predict(model, rows))
    scores = [(item["id"], repr(item["score"])) for item in body["predictions"]]
    parts = [table(f"version {body['version']}", ("id", "score"), scores)]
    if len(rows) == 1:
        features = body["predictions"][0]["features"]
        parts.append(table("features", ("feature", "value"), [(name, repr(value)) for name, value in features.items()]))
    output.show(({"model": model} if model else {}) | body, *parts)


def _predict_file(project: Project, model: str | None, files: tuple[Path, Path], output: Output) -> None:
    source, target = files
    for option, path in (("--in", source), ("--out", target)):
        if path.suffix not in _ENDINGS:
            raise RequestError(
                f"option {option}", "is neither Parquet nor CSV", value=str(path), fix="end it in .parquet or .csv"
            )
    with output.working(f"predicting {source}"):
        n = project.predict_file(model, source, target)
    output.show({"rows": n, "out": str(target)}, f"{count_text(n, 'row')} predicted to {target}")


def _reject_constant(name: str) -> NoReturn:
    raise RequestError("option --row", "is not JSON", value=name, fix="send null for an unknown value")
