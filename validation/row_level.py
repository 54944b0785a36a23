"""Which expectations can be judged row by row: on new rows alone, whatever the others are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

_ALL = 1.0
_AMONG_ROWS = frozenset({"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"})


def is_row_level(expectation: Expectation) -> bool:
    """Say whether an expectation holds of a table exactly if it holds of each of its rows.

    A share of the rows (``mostly``) and uniqueness are of the table.
    """
    from great_expectations.expectations.expectation import (  # noqa: PLC0415 - seconds; only where there is a suite
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    of_rows = isinstance(expectation, ColumnMapExpectation | ColumnPairMapExpectation | MulticolumnMapExpectation)
    every = expectation.configuration.kwargs.get("mostly", _ALL) == _ALL
    return of_rows and every and expectation.expectation_type not in _AMONG_ROWS
