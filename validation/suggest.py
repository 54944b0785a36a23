"""Suggests a suite for a table, from its plan and a summary of its current data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import TYPE_CHECKING, Any

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.infra.reads.offline.sql import quote, quote_all

if TYPE_CHECKING:
    import duckdb

Range = tuple[float, float]
MAX_WORDS = 20

_MIN_ROWS = 20  # with fewer rows only the plan's requirements are suggested
_ROWS_PER_WORD = 50  # rows per word that make a vocabulary complete enough
_SLACK = 0.5  # share of the spread, added at both ends
_DIGITS = 2
_NULL_SHARE = 0.05  # share of nulls that is allowed beyond twice the current share
_NUMBERS = frozenset({DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64})


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """A summary of a column's values.

    Args:
        dtype: its type in the plan.
        nulls: rows without a value.
        extent: smallest and largest finite value; None for text, and without values.
        words: all distinct values of text, if there are at most ``MAX_WORDS``.
        mean: mean of numbers; None without values.
    """

    name: str
    dtype: DType
    nulls: int
    extent: Range | None = None
    words: tuple[str, ...] | None = None
    mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableSummary:
    """A summary of a view's source or a label table.

    Args:
        name: name of the suite: a view, or ``labels:MODEL``.
        rows: number of rows.
        present: columns that the plan requires: keys and the event time.
        columns: features, or request fields and the label.
        unique: columns whose values together identify all rows, if there are any.
        types: DuckDB's types of columns that are read without a cast.
        classes: column with class labels -> number of classes.
    """

    name: str
    rows: int
    present: tuple[str, ...]
    columns: tuple[ColumnSummary, ...]
    unique: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SuggestedExpectation:
    """One expectation of Great Expectations: its class and arguments."""

    kind: str
    arguments: Mapping[str, Any]


def suggest_suite(table: TableSummary, trained: Mapping[str, Range] | None = None) -> list[SuggestedExpectation]:
    """Return a suite that the table passes now, with slack for new data.

    Args:
        trained: by column, the range of the training data.
    """
    suite = [_expectation("ExpectColumnValuesToNotBeNull", column=name) for name in table.present]
    suite += [
        _expectation("ExpectColumnValuesToBeOfType", column=name, type_=kind) for name, kind in table.types.items()
    ]
    if table.rows < _MIN_ROWS:
        return suite
    suite += _suggest_unique(table.unique)
    for column in table.columns:
        suite += _suggest_nulls(column, table.rows) if column.name not in table.present else ()
        if column.name in table.classes:
            suite += _suggest_classes(column, table.classes[column.name])
        else:
            suite += _suggest_values(column, table.rows, (trained or {}).get(column.name))
    return suite


def _suggest_unique(columns: Sequence[str]) -> Iterator[SuggestedExpectation]:
    if len(columns) == 1:
        yield _expectation("ExpectColumnValuesToBeUnique", column=columns[0])
    elif columns:
        yield _expectation("ExpectCompoundColumnsToBeUnique", column_list=list(columns))


def _suggest_nulls(column: ColumnSummary, rows: int) -> Iterator[SuggestedExpectation]:
    if not column.nulls:
        yield _expectation("ExpectColumnValuesToNotBeNull", column=column.name)
        return
    # Rounded down: the table must pass its own suite.
    mostly = math.floor(100 * (1 - 2 * column.nulls / rows - _NULL_SHARE)) / 100
    if mostly > 0:
        yield _expectation("ExpectColumnValuesToNotBeNull", column=column.name, mostly=mostly)


def _suggest_classes(column: ColumnSummary, n: int) -> Iterator[SuggestedExpectation]:
    yield _expectation("ExpectColumnValuesToBeInSet", column=column.name, value_set=list(range(n)))
    if n == 2 and column.mean is not None:  # noqa: PLR2004 - a binary label
        low, high = _round(column.mean / 2, ROUND_FLOOR), min(1.0, _round(column.mean * 2, ROUND_CEILING))
        yield _expectation("ExpectColumnMeanToBeBetween", column=column.name, min_value=low, max_value=high)


def _suggest_values(column: ColumnSummary, rows: int, trained: Range | None) -> Iterator[SuggestedExpectation]:
    if column.words is not None and rows >= _ROWS_PER_WORD * len(column.words) > 0:
        yield _expectation("ExpectColumnValuesToBeInSet", column=column.name, value_set=sorted(column.words))
    if column.extent is None or column.dtype in {DType.BOOL, DType.TIMESTAMP}:
        return
    ends = [*column.extent, *(trained or ())]
    low, high = add_slack((min(ends), max(ends)), whole=column.dtype in {DType.INT32, DType.INT64})
    yield _expectation("ExpectColumnValuesToBeBetween", column=column.name, min_value=low, max_value=high)


def add_slack(extent: Range, *, whole: bool) -> Range:
    """Return an extent widened by half its spread at both ends, rounded to two digits.

    Values of 0 or more keep 0 as the limit, and shares keep 0 and 1.

    >>> add_slack((3.0, 97.0), whole=False), add_slack((0.1, 0.8), whole=False), add_slack((-4.0, 4.0), whole=True)
    ((0.0, 150.0), (0.0, 1.0), (-8, 8))
    """
    low, high = extent
    if not whole and low >= 0 and high <= 1:
        return 0.0, 1.0
    room = _SLACK * (high - low) or max(abs(high), 1.0)
    wider = (_round(low - room, ROUND_FLOOR), _round(high + room, ROUND_CEILING))
    wider = (max(wider[0], 0.0) if low >= 0 else wider[0], min(wider[1], 0.0) if low < 0 >= high else wider[1])
    return (int(wider[0]), int(wider[1])) if whole else wider


def _round(value: float, rounding: str) -> float:
    """Return a value rounded outwards to two digits; decimal, because a float has no 10**310."""
    return float(Context(prec=_DIGITS, rounding=rounding).create_decimal(repr(value)))


def _expectation(kind: str, **arguments: Any) -> SuggestedExpectation:  # noqa: ANN401 - of an expectation
    return SuggestedExpectation(kind=kind, arguments=arguments)


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
