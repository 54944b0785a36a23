"""What the tables of a project hold, column by column: one DuckDB query for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.offline.sql import quote, quote_all
from skewless.validation.suggest import MOST_WORDS, ColumnSummary, Range

_NUMBERS = frozenset({DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64})


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a query's rows hold.

    Args:
        columns: as they were asked for.
        distinct: per asked set of columns, how many different values they have together.
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
    """Return what the rows of a query hold, from one pass over them.

    Args:
        parameters: values bound to the query.
        columns: the columns to look at, with their types in the plan.
        sets: columns whose different values are counted together.
    """
    parts = ["count(*)", *(f"count(DISTINCT ({quote_all(keys)}))" for keys in sets)]
    parts += [part for column in columns for part in _parts(column)]
    row = connection.execute(f"SELECT {', '.join(parts)} FROM ({query})", list(parameters)).fetchall()[0]
    rest = iter(row[1 + len(sets) :])
    return Summary(
        rows=row[0],
        distinct=tuple(row[1 : 1 + len(sets)]),
        columns=tuple(_summary(column, row[0], [next(rest) for _ in range(5)]) for column in columns),
    )


def _parts(column: Column) -> list[str]:
    """Return SQL for values, least, greatest, mean and words of a column."""
    name = quote(column.name)
    if column.dtype in _NUMBERS:
        number = f"CAST({name} AS DOUBLE)"
        finite = f"FILTER (WHERE isfinite({number}))"
        return [f"count({name})", *(f"{what}({number}) {finite}" for what in ("min", "max", "avg")), "NULL"]
    if column.dtype is DType.STRING:
        words = f"CASE WHEN count(DISTINCT {name}) <= {MOST_WORDS} THEN list(DISTINCT {name}) END"
        return [f"count({name})", "NULL", "NULL", "NULL", words]
    return [f"count({name})", "NULL", "NULL", "NULL", "NULL"]


def _summary(column: Column, rows: int, found: Sequence[Any]) -> ColumnSummary:
    values, least, greatest, mean, words = found
    extent: Range | None = None if least is None else (least, greatest)
    return ColumnSummary(
        name=column.name,
        dtype=column.dtype,
        nulls=rows - values,
        extent=extent,
        mean=mean,
        words=None if words is None else tuple(sorted(word for word in words if word is not None)),
    )
