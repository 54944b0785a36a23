"""What a data gate found, expectation by expectation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from skewless.contract.errors import GateError

_SHOWN = 3
COLUMN_KEYS = ("column", "column_A", "column_B", "column_list")


@dataclass(frozen=True, kw_only=True)
class ExpectationResult:
    """The verdict of one expectation.

    Args:
        expectation: its type, for example ``expect_column_values_to_be_between``.
        column: the column it is about (several joined by ", "); None for the whole table.
        success: whether it holds.
        severity: ``critical`` closes the gate; ``warning`` and ``info`` are only reported.
        kwargs: its arguments, as JSON values.
        unexpected_count: values that break it; None where values are not counted, or where it holds.
        unexpected_percent: the same in percent of the values looked at (nulls are not).
        observed: the aggregate looked at (mean, row count ...), where there is one and it failed.
        sample: some of the unexpected values, as JSON values.
        error: why it could not be evaluated, for example a missing column.
    """

    expectation: str
    column: str | None
    success: bool
    severity: str = "critical"
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    observed: Any = None
    sample: tuple[Any, ...] = ()
    error: str | None = None

    @property
    def closes(self) -> bool:
        """Say whether this result closes the gate."""
        return not self.success and self.severity == "critical"

    @property
    def expected(self) -> str:
        """Return what was expected, in words."""
        about = "" if self.column is None else f" on column {self.column!r}"
        return f"{self.expectation}({self.arguments}){about}"

    @property
    def arguments(self) -> str:
        """Return the arguments but for the columns, as they are written."""
        return ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items() if key not in COLUMN_KEYS)

    def sentence(self) -> str:
        """Return what was expected and what was seen, on one line.

        >>> ExpectationResult(expectation="expect_column_mean_to_be_between", column="x", success=False,
        ...     kwargs={"column": "x", "max_value": 1.0}, observed=7.5).sentence()
        "expect_column_mean_to_be_between(max_value=1.0) on column 'x': observed 7.5"
        """
        return f"{self.expected}: {self.seen}"

    @property
    def seen(self) -> str:
        """Return what was seen, in words."""
        if self.error is not None:
            return f"could not be evaluated: {self.error}"
        if self.success:
            return "holds"
        if self.unexpected_count is None:
            return f"observed {self.observed!r}"
        percent = "" if self.unexpected_percent is None else f" ({self.unexpected_percent:.3g} %)"
        return f"{self.unexpected_count} unexpected values{percent}, such as {list(self.sample[:_SHOWN])!r}"


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """The verdict on one batch of rows.

    Args:
        name: the view, or ``labels``.
        n_rows: rows in the batch.
        seconds: what the check took.
        results: one for each expectation, in the order of the suite.
        since_us: rows that were known by then had passed before, and were not judged one by one again; what is
            said of the whole table was. None: all rows were judged.
    """

    name: str
    n_rows: int
    seconds: float
    results: tuple[ExpectationResult, ...] = ()
    since_us: int | None = None

    @property
    def success(self) -> bool:
        """Say whether the gate is open: no critical expectation failed."""
        return not any(result.closes for result in self.results)

    @property
    def failed(self) -> tuple[ExpectationResult, ...]:
        """Return the results that do not hold, warnings included."""
        return tuple(result for result in self.results if not result.success)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {"success": self.success, **asdict(self), "results": [asdict(result) for result in self.results]}

    def raise_if_failed(self) -> None:
        """Do nothing if the gate is open.

        Raises:
            GateError: names every expectation that closed it (the first three in full).
        """
        closing = [result for result in self.results if result.closes]
        if not closing:
            return
        more = f"; and {len(closing) - _SHOWN} more" if len(closing) > _SHOWN else ""
        raise GateError(
            f"batch {self.name!r} of {self.n_rows} rows",
            "; ".join(result.sentence() for result in closing[:_SHOWN]) + more,
            fix="correct these rows at their source, or change the suite in expectations.py",
        )
