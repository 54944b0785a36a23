"""The report of a data gate, with a result for each expectation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from skewless.contract.errors import GateError
from skewless.contract.render import count_text

_SHOWN = 3
COLUMN_KEYS = ("column", "column_A", "column_B", "column_list")


@dataclass(frozen=True, kw_only=True)
class ExpectationResult:
    """The verdict of one expectation.

    Args:
        expectation: its type, for example ``expect_column_values_to_be_between``.
        column: its column (several joined by ", "); None for the table.
        success: whether it passed.
        severity: ``critical`` fails the gate; ``warning`` and ``info`` are only reported.
        kwargs: its arguments, as JSON values.
        unexpected_count: number of values that violate it; None if values are not counted, or if it passed.
        unexpected_percent: their share in percent of the checked values (nulls are not checked).
        observed: the observed aggregate (mean, row count ...), if there is one and it failed.
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
    def fails_gate(self) -> bool:
        """Return whether this result fails the gate."""
        return not self.success and self.severity == "critical"

    @property
    def expected(self) -> str:
        """Return the expectation as text."""
        about = "" if self.column is None else f" on column {self.column!r}"
        return f"{self.expectation}({self.arguments}){about}"

    @property
    def arguments(self) -> str:
        """Return the arguments except the columns, in Python syntax."""
        return ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items() if key not in COLUMN_KEYS)

    def sentence(self) -> str:
        """Return the expectation and the observation, on one line.

        >>> ExpectationResult(expectation="expect_column_mean_to_be_between", column="x", success=False,
        ...     kwargs={"column": "x", "max_value": 1.0}, observed=7.5).sentence()
        "expect_column_mean_to_be_between(max_value=1.0) on column 'x': observed 7.5"
        """
        return f"{self.expected}: {self.seen}"

    @property
    def seen(self) -> str:
        """Return the observation as text."""
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
        seconds: duration of the check.
        results: one for each expectation, in the order of the suite.
        since_us: rows known by then had passed before and were not checked again, except by expectations about
            the complete table. None: all rows were checked.
        not_yet_known: rows of a label table that were not checked, because their label is not known yet.
    """

    name: str
    n_rows: int
    seconds: float
    results: tuple[ExpectationResult, ...] = ()
    since_us: int | None = None
    not_yet_known: int = 0

    @property
    def success(self) -> bool:
        """Return whether the gate passed: no critical expectation failed."""
        return not any(result.fails_gate for result in self.results)

    @property
    def failed(self) -> tuple[ExpectationResult, ...]:
        """Return the failed results, warnings included."""
        return tuple(result for result in self.results if not result.success)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {"success": self.success, **asdict(self), "results": [asdict(result) for result in self.results]}

    def raise_if_failed(self) -> None:
        """Raise an error if the gate failed.

        Raises:
            GateError: names the failed critical expectations (the first three in full).
        """
        failures = [result for result in self.results if result.fails_gate]
        if not failures:
            return
        more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        raise GateError(
            f"batch {self.name!r} of {count_text(self.n_rows, 'row')}",
            "; ".join(result.sentence() for result in failures[:_SHOWN]) + more,
            fix="correct these rows at their source, or change the suite in expectations.py",
        )
