"""Derives the bounds in a model's package from the suites of its data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from skewless.contract.bounds import Bound, Bounds, Value
from skewless.contract.clock import to_us
from skewless.contract.columns import REQUEST
from skewless.contract.dtypes import DType
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.validation.suites import LABELS

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

Suites = Mapping[str, "Sequence[Expectation]"]
_ALL = 1.0
_UNSUPPORTED = frozenset({DType.BYTES})


def compile_bounds(plan: FeaturePlan, spec: ModelSpec, suites: Suites) -> Bounds:
    """Return the bounds of a model's features, keys and request fields.

    They come from ``ExpectColumnValuesToBeBetween``, ``...ToBeInSet`` and ``...ToNotBeNull`` that are critical and
    apply to all rows. Expectations with ``mostly`` below 1, another severity or a ``row_condition`` are ignored,
    because some valid rows violate them.

    Args:
        plan: the part of the plan that the model pins.
        suites: suites by view, ``labels`` or ``labels:MODEL``.
    """
    return Bounds(features=_feature_bounds(plan, spec, suites), fields=_field_bounds(plan, spec, suites))


def _feature_bounds(plan: FeaturePlan, spec: ModelSpec, suites: Suites) -> dict[str, Bound]:
    label_bounds = _field_bounds(plan, spec, suites)
    bounds = {}
    for ref in plan.services[0].features:
        bound = label_bounds.get(ref.name) if ref.group == REQUEST else None
        if ref.group in {view.name for view in plan.views}:
            bound = _column_bound(suites.get(ref.group, ()), ref.name, plan.dtype(ref))
        if bound is not None and not bound.is_open:
            bounds[ref.label] = bound
    return bounds


def _field_bounds(plan: FeaturePlan, spec: ModelSpec, suites: Suites) -> dict[str, Bound]:
    suite = suites.get(f"{LABELS}:{spec.name}") or suites.get(LABELS, ())
    bounds = {
        column.name: _column_bound(suite, spec.labels.column(column.name), column.dtype)
        for column in (*plan.join_keys, *plan.request)
    }
    return {name: bound for name, bound in bounds.items() if not bound.is_open}


def _column_bound(suite: Sequence[Expectation], column: str, dtype: DType) -> Bound:
    bound = Bound()
    for expectation in suite:
        arguments: dict[str, Any] = expectation.configuration.kwargs
        if arguments.get("column") == column and _applies_to_all(expectation, arguments):
            bound = bound.intersect(_expectation_bound(expectation.expectation_type, arguments, dtype))
    return bound


def _applies_to_all(expectation: Expectation, arguments: Mapping[str, Any]) -> bool:
    critical = expectation.configuration.severity == "critical"
    return critical and arguments.get("mostly", _ALL) == _ALL and not arguments.get("row_condition")


def _expectation_bound(kind: str, arguments: Mapping[str, Any], dtype: DType) -> Bound:
    """Return the bound of one expectation; an open bound if it cannot be compared."""
    if kind == "expect_column_values_to_not_be_null":
        return Bound(nullable=False)
    if kind == "expect_column_values_to_be_between" and not dtype.is_text:
        low, high = _number(arguments.get("min_value")), _number(arguments.get("max_value"))
        # A server compares with inclusive bounds only; the next float64 makes a strict one of them.
        if low is not None and arguments.get("strict_min"):
            low = math.nextafter(low, math.inf)
        if high is not None and arguments.get("strict_max"):
            high = math.nextafter(high, -math.inf)
        return Bound(low=low, high=high)
    if kind == "expect_column_values_to_be_in_set" and dtype not in _UNSUPPORTED:
        return Bound(allowed=_allowed_values(arguments.get("value_set") or (), dtype))
    return Bound()


def _allowed_values(values: Sequence[object], dtype: DType) -> tuple[Value, ...] | None:
    converted = [value if isinstance(value, str) and dtype.is_text else _number(value) for value in values]
    numbers = [value for value in converted if value is not None]
    return tuple(sorted(set(numbers))) if len(numbers) == len(converted) else None


def _number(value: object) -> float | None:
    """Return a limit as a float, times as microseconds; None if it is not a number."""
    if isinstance(value, datetime):
        return float(to_us(value if value.tzinfo else value.replace(tzinfo=UTC)))
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
