"""Summarises tables by column, with one DuckDB query per table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.offline.sql import quote, quote_all
from skewless.validation.suggest import MAX_WORDS, ColumnSummary, Range

_NUMBERS = frozenset({DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64})


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A summary of a query's rows.

    Args:
        columns: summaries of the requested columns.
        distinct: for each requested set of columns, the number of distinct combinations of values.
    """

    rows: int
    columns: tuple[ColumnSummary, ...]
    distinct: tuple[int, ...]


def summarise(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[object],
    columns: Sequence[Column],
    sets: Sequence[Sequence[str]] = (),
) -> Summary:
    """Return a summary of the rows of a query, from one pass over them.

    Args:
        parameters: values bound to the query.
        columns: the columns to summarise, with their types in the plan.
        sets: sets of columns whose distinct combinations are counted.
    """
    parts = ["count(*)", *(f"count(DISTINCT ({quote_all(keys)}))" for keys in sets)]
    parts += [part for column in columns for part in _column_sql(column)]
    row = connection.execute(f"SELECT {', '.join(parts)} FROM ({query})", list(parameters)).fetchall()[0]
    values = iter(row[1 + len(sets) :])
    return Summary(
        rows=row[0],
        distinct=tuple(row[1 : 1 + len(sets)]),
        columns=tuple(_column_summary(column, row[0], [next(values) for _ in range(5)]) for column in columns),
    )


def _column_sql(column: Column) -> list[str]:
    """Return SQL for the count, minimum, maximum, mean and words of a column."""
    name = quote(column.name)
    if column.dtype in _NUMBERS:
        number = f"CAST({name} AS DOUBLE)"
        # One infinity would be the extent of the column, and its mean.
        finite = f"FILTER (WHERE isfinite({number}))"
        return [f"count({name})", *(f"{function}({number}) {finite}" for function in ("min", "max", "avg")), "NULL"]
    if column.dtype is DType.STRING:
        words = f"CASE WHEN count(DISTINCT {name}) <= {MAX_WORDS} THEN list(DISTINCT {name}) END"
        return [f"count({name})", "NULL", "NULL", "NULL", words]
    return [f"count({name})", "NULL", "NULL", "NULL", "NULL"]


def _column_summary(column: Column, rows: int, row: Sequence[Any]) -> ColumnSummary:
    values, smallest, largest, mean, words = row
    extent: Range | None = None if smallest is None else (smallest, largest)
    return ColumnSummary(
        name=column.name,
        dtype=column.dtype,
        nulls=rows - values,
        extent=extent,
        mean=mean,
        words=None if words is None else tuple(sorted(word for word in words if word is not None)),
    )
