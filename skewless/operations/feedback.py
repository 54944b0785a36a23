"""Feedback in tables: read, checked as a whole, appended to the outcome log."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.contract.clock import to_us
from skewless.contract.errors import SourceError
from skewless.contract.feedback import Outcome, parse_feedback

if TYPE_CHECKING:
    from skewless.contract.plan import FeaturePlan
    from skewless.project import Project

_READERS = {
    ".parquet": "SELECT * FROM read_parquet(?)",
    ".csv": "SELECT * FROM read_csv(?)",
    ".jsonl": "SELECT * FROM read_json(?, format = 'newline_delimited')",
}
_OWN = frozenset({"prediction_id", "event_time", "label", "value", "known_at"})
_MOST = 5_000_000


@dataclass(frozen=True, kw_only=True)
class FeedbackTable:
    """A table of outcomes that passed every check.

    Args:
        outcomes: in the order of the file.
    """

    outcomes: list[Outcome]

    def kinds(self) -> dict[str, int]:
        """Return how many there are of each kind (``label``, ``value``, ``retraction``)."""
        return dict(sorted(Counter(outcome.kind for outcome in self.outcomes).items()))


def read_feedback(project: Project, path: Path, model: str | None) -> FeedbackTable:
    """Return the outcomes of a Parquet, CSV or JSON-lines file; nothing is written.

    Args:
        path: one row an outcome, with ``label`` and, if it has them, ``value`` and ``known_at``; and with
            ``prediction_id``, or with ``event_time`` and a column for each key of the model.
        model: that was asked, of a table without prediction ids.

    Raises:
        SourceError: the file cannot be read.
        RequestError: the plan has no such model, or a row is wrong; it is named by its place, from 0.
    """
    if model is not None:
        project.applied.model(model)
    rows = _rows(project, path)
    if model is not None:
        rows = [_by_entity(row, model) for row in rows]
    return FeedbackTable(outcomes=parse_feedback(rows, _plans(project), project.clock.now_us(), _MOST))


def append_feedback(project: Project, table: FeedbackTable, source: str) -> Path:
    """Append outcomes to the outcome log; return the file, which the disk has.

    Raises:
        StoreError: the disk refused; nothing was kept.
    """
    from skewless.infra.outcomes.writer import OutcomeWriter

    writer = OutcomeWriter(project.state)
    return writer.append(table.outcomes, received_at=project.clock.now_us(), source=source)


def _plans(project: Project) -> Any:  # noqa: ANN401 - see PlanOf
    known: dict[str, FeaturePlan] = {}

    def plan_of(model: str) -> FeaturePlan:
        if model not in known:
            known[model] = project.applied.plan.only(project.applied.model(model).service)
        return known[model]

    return plan_of


def _rows(project: Project, path: Path) -> list[dict[str, Any]]:
    import duckdb

    reader = _READERS.get(path.suffix)
    if reader is None or not path.is_file():
        problem = "is not there" if reader else f"ends in none of {', '.join(_READERS)}"
        raise SourceError(f"feedback table {path}", problem, fix="name a Parquet, CSV or JSON-lines file")
    try:
        found = project.connection.sql(reader, params=[str(path)]).to_arrow_table()
    except duckdb.Error as error:
        raise SourceError(f"feedback table {path}", f"cannot be read: {error}", fix="correct the file") from error
    return [{name: _plain(value) for name, value in row.items()} for row in found.to_pylist()]


def _by_entity(row: Mapping[str, Any], model: str) -> dict[str, Any]:
    keys = {name: value for name, value in row.items() if name not in _OWN}
    return {**{name: row[name] for name in row.keys() & _OWN}, "model": model, "keys": keys}


def _plain(value: Any) -> Any:  # noqa: ANN401 - of any column
    """Return a value as JSON has it; times without a zone are UTC, NaN is null."""
    if isinstance(value, datetime):
        return to_us(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, date):
        return to_us(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
