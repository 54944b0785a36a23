"""A sensible suite for a table that is good as it is: what its plan demands, and what its data has always held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skewless.contract.dtypes import DType

Range = tuple[float, float]
MOST_WORDS = 20

_FEW_ROWS = 20  # of fewer nothing is said but what the plan demands
_ROWS_PER_WORD = 50  # rows for each word of a vocabulary, or it may not be whole
_SLACK = 0.5  # of the spread, at both ends
_DIGITS = 2
_SHARE = 0.05  # nulls beyond twice what there were


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """What a column holds.

    Args:
        dtype: its type in the plan.
        nulls: rows without a value.
        extent: least and greatest finite value; None for text, and without any.
        words: of text, all its words, if they are at most ``MOST_WORDS``.
        mean: of numbers; None without any.
    """

    name: str
    dtype: DType
    nulls: int
    extent: Range | None = None
    words: tuple[str, ...] | None = None
    mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableSummary:
    """What a view's source or a label table holds.

    Args:
        name: the suite's: a view, or ``labels:MODEL``.
        rows: how many there are.
        present: columns that the plan demands: keys and the event time.
        columns: features, or request fields; a label is one of them.
        unique: columns whose values together tell all rows apart, if any do.
        types: DuckDB's types of columns that are read as they are.
        classes: a column with class labels -> how many classes there are.
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


def suggest(table: TableSummary, trained: Mapping[str, Range] | None = None) -> list[SuggestedExpectation]:
    """Return a suite that the table passes now, with room for what it may hold tomorrow.

    Args:
        trained: by column, the extent of what a model was trained on.
    """
    suite = [_of("ExpectColumnValuesToNotBeNull", column=name) for name in table.present]
    suite += [_of("ExpectColumnValuesToBeOfType", column=name, type_=kind) for name, kind in table.types.items()]
    if table.rows < _FEW_ROWS:
        return suite
    suite += _uniqueness(table.unique)
    for column in table.columns:
        suite += _nulls(column, table.rows) if column.name not in table.present else ()
        if column.name in table.classes:
            suite += _classes(column, table.classes[column.name])
        else:
            suite += _values(column, table.rows, (trained or {}).get(column.name))
    return suite


def _uniqueness(columns: Sequence[str]) -> Iterator[SuggestedExpectation]:
    if len(columns) == 1:
        yield _of("ExpectColumnValuesToBeUnique", column=columns[0])
    elif columns:
        yield _of("ExpectCompoundColumnsToBeUnique", column_list=list(columns))


def _nulls(column: ColumnSummary, rows: int) -> Iterator[SuggestedExpectation]:
    if not column.nulls:
        yield _of("ExpectColumnValuesToNotBeNull", column=column.name)
        return
    mostly = math.floor(100 * (1 - 2 * column.nulls / rows - _SHARE)) / 100
    if mostly > 0:
        yield _of("ExpectColumnValuesToNotBeNull", column=column.name, mostly=mostly)


def _classes(column: ColumnSummary, n: int) -> Iterator[SuggestedExpectation]:
    yield _of("ExpectColumnValuesToBeInSet", column=column.name, value_set=list(range(n)))
    if n == 2 and column.mean is not None:  # noqa: PLR2004 - a binary label
        low, high = _rounded(column.mean / 2, math.floor), min(1.0, _rounded(column.mean * 2, math.ceil))
        yield _of("ExpectColumnMeanToBeBetween", column=column.name, min_value=low, max_value=high)


def _values(column: ColumnSummary, rows: int, trained: Range | None) -> Iterator[SuggestedExpectation]:
    if column.words is not None and rows >= _ROWS_PER_WORD * len(column.words) > 0:
        yield _of("ExpectColumnValuesToBeInSet", column=column.name, value_set=sorted(column.words))
    if column.extent is None or column.dtype in {DType.BOOL, DType.TIMESTAMP}:
        return
    low, high = with_slack(_joined(column.extent, trained), whole=column.dtype in {DType.INT32, DType.INT64})
    yield _of("ExpectColumnValuesToBeBetween", column=column.name, min_value=low, max_value=high)


def with_slack(extent: Range, *, whole: bool) -> Range:
    """Return a range that holds an extent with half its spread at both ends, at two digits.

    What never was below zero stays above it, and shares stay between 0 and 1.

    >>> with_slack((3.0, 97.0), whole=False), with_slack((0.1, 0.8), whole=False), with_slack((-4.0, 4.0), whole=True)
    ((0.0, 150.0), (0.0, 1.0), (-8, 8))
    """
    low, high = extent
    if not whole and low >= 0 and high <= 1:
        return 0.0, 1.0
    room = _SLACK * (high - low) or max(abs(high), 1.0)
    wider = (_rounded(low - room, math.floor), _rounded(high + room, math.ceil))
    wider = (max(wider[0], 0.0) if low >= 0 else wider[0], min(wider[1], 0.0) if low < 0 >= high else wider[1])
    return (int(wider[0]), int(wider[1])) if whole else wider


def _joined(extent: Range, other: Range | None) -> Range:
    return extent if other is None else (min(extent[0], other[0]), max(extent[1], other[1]))


def _rounded(value: float, to: Any) -> float:  # noqa: ANN401 - floor or ceil
    """Return a value at two digits, away from what lies inside."""
    if value == 0:
        return 0.0
    digits = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    return float(to(value / 10**-digits) * 10**-digits if digits < 0 else to(value * 10**digits) / 10**digits)


def _of(kind: str, **arguments: Any) -> SuggestedExpectation:  # noqa: ANN401 - of an expectation
    return SuggestedExpectation(kind=kind, arguments=arguments)
