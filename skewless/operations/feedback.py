"""Feedback in tables: read, checked, and appended to the outcome log, all rows or none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from skewless.contract.clock import to_us
from skewless.contract.errors import SourceError
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import FeaturePlan
from skewless.infra.outcomes.log import OutcomeWriter, outcome_spool
from skewless.workspace import Workspace

_READERS = {
    ".parquet": "SELECT * FROM read_parquet(?)",
    ".csv": "SELECT * FROM read_csv(?)",
    ".jsonl": "SELECT * FROM read_json(?, format = 'newline_delimited')",
}
_TYPES = {".csv": "types", ".jsonl": "columns"}  # their option of types, which DuckDB guesses otherwise
_OWN = frozenset({"prediction_id", "event_time", "label", "value", "known_at"})
_MOST = 5_000_000


@dataclass(frozen=True, kw_only=True)
class FeedbackReport(PlainRecord):
    """The rows appended to the outcome log.

    Args:
        kinds: rows of each kind: ``label``, ``value``, ``retraction``.
        batch: name in the log; None: nothing was written.
    """

    rows: int
    kinds: dict[str, int]
    batch: str | None


def feedback(project: Workspace, file: Path, *, model: str | None = None, dry_run: bool = False) -> FeedbackReport:
    """Append the outcomes of a file to the outcome log, as ``read_feedback`` reads them; all rows, or none.

    Raises: as ``read_feedback``; also StoreError: the disk failed.
    """
    outcomes, batch = read_feedback(project, file, model), None
    if not dry_run:
        writer = OutcomeWriter(outcome_spool(project.state))
        batch = writer.append(outcomes, received_at=project.clock.now_us(), source=file.name)
    kinds = dict(sorted(Counter(outcome.kind for outcome in outcomes).items()))
    return FeedbackReport(rows=len(outcomes), kinds=kinds, batch=batch)


def read_feedback(project: Workspace, path: Path, model: str | None) -> list[Outcome]:
    """Return the outcomes of a Parquet, CSV or JSON-lines file, in its order.

    Args:
        path: one outcome per row, with ``label`` and optionally ``value`` and ``known_at``; and with
            ``prediction_id``, or with ``event_time`` and a column for each key of the model.
        model: of the predictions, for a table without prediction ids.

    Raises:
        SourceError: the file cannot be read.
        RequestError: the plan has no such model, or a row is invalid; the error has its number, from 0.
    """

    @cache
    def plan_of(model: str) -> FeaturePlan:
        return project.applied.plan.select_service(project.applied.model(model).service)

    inputs = () if model is None else (*plan_of(model).join_keys, *plan_of(model).request)
    rows = _rows(project, path, {"prediction_id"} | {column.name for column in inputs if column.dtype.is_text})
    rows = rows if model is None else [_by_entity(row, model) for row in rows]
    return parse_feedback(rows, plan_of, project.clock.now_us(), _MOST)


def _rows(project: Workspace, path: Path, texts: set[str]) -> list[dict[str, Any]]:
    reader = _READERS.get(path.suffix)
    if reader is None or not path.is_file():
        problem = "is missing" if reader else "is not a .parquet, .csv or .jsonl file"
        raise SourceError(f"feedback table {path}", problem, fix="name a Parquet, CSV or JSON-lines file")
    try:
        found = project.connection.sql(reader, params=[str(path)])
        if path.suffix in _TYPES:
            # It takes the texts 42, true and 2026-01-02 for a number, a bool and a date, if all of a column are.
            types = dict(zip(found.columns, map(str, found.types), strict=True))
            types |= dict.fromkeys(texts & types.keys(), "VARCHAR")
            found = project.connection.sql(f"{reader[:-1]}, {_TYPES[path.suffix]} = ?)", params=[str(path), types])
        table = found.to_arrow_table()
    except duckdb.Error as error:
        raise SourceError(f"feedback table {path}", f"cannot be read: {error}", fix="correct the file") from error
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _by_entity(row: Mapping[str, Any], model: str) -> dict[str, Any]:
    keys = {name: value for name, value in row.items() if name not in _OWN}
    return {**{name: row[name] for name in row.keys() & _OWN}, "model": model, "keys": keys}


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any column
    """Return a value that JSON can hold; a time without a zone is text, which is rejected, and NaN is null."""
    if isinstance(value, datetime) and value.tzinfo:
        return to_us(value)
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
