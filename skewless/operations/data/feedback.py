"""Feedback in tables: read, checked, and appended to the outcome log, all rows or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import request_value
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.serving.batch_files import CHUNK_ROWS, ENDINGS, open_input
from skewless.workspace import Workspace

_LINES = ".jsonl"
_TYPES = dict.fromkeys(("label", "value"), DType.FLOAT64) | dict.fromkeys(("event_time", "known_at"), DType.TIMESTAMP)
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
    rows = _read_rows(path, {column.name: column.dtype for column in inputs} | _TYPES)
    rows = rows if model is None else (_by_entity(row, model) if isinstance(row, dict) else row for row in rows)
    return parse_feedback(list(rows), plan_of, project.clock.now_us(), _MOST)


def _read_rows(path: Path, types: Mapping[str, DType]) -> Iterator[Any]:
    if path.suffix not in {*ENDINGS, _LINES} or not path.is_file():
        problem = "is missing" if path.suffix in {*ENDINGS, _LINES} else "is not a .parquet, .csv or .jsonl file"
        raise SourceError(f"feedback table {path}", problem, fix="name a Parquet, CSV or JSON-lines file")
    if path.suffix != _LINES:
        for _, rows in open_input(path).read_chunks(CHUNK_ROWS):
            for row in rows.to_pylist():
                yield {name: request_value(value, types.get(name, DType.STRING)) for name, value in row.items()}
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            yield from [orjson.loads(line)] if line.strip() else []
        except orjson.JSONDecodeError as error:
            problem = f"has a line {number} that is not JSON: {error}"
            raise SourceError(f"feedback table {path}", problem, fix="correct the line") from error


def _by_entity(row: Mapping[str, Any], model: str) -> dict[str, Any]:
    keys = {name: value for name, value in row.items() if name not in _OWN}
    return {**{name: row[name] for name in row.keys() & _OWN}, "model": model, "keys": keys}
