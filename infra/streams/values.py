"""The values of one JSON field of many events as a typed column; what does not fit is null, with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.clock import parse_time
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.request import parse_field

_NONE = type(None)
_PLAIN: dict[DType, frozenset[type]] = {
    DType.INT32: frozenset({int, _NONE}),
    DType.INT64: frozenset({int, _NONE}),
    DType.FLOAT32: frozenset({int, float, _NONE}),
    DType.FLOAT64: frozenset({int, float, _NONE}),
    DType.BOOL: frozenset({bool, _NONE}),
    DType.STRING: frozenset({str, _NONE}),
    DType.TIMESTAMP: frozenset({int, _NONE}),
}


def typed(column: Column, values: Sequence[Any]) -> tuple[pa.Array, dict[int, str]]:
    """Return values as the column's type, and for those that do not fit why; those are null.

    Null is a value like any other; integers may come as digits, times as ISO 8601 text (without a zone: UTC).
    """
    kind = arrow_type(column.dtype)
    if set(map(type, values)) <= _PLAIN.get(column.dtype, frozenset()):
        try:
            return pa.array(values, kind), {}
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass  # some number is out of range, or some text is no Unicode: each is looked at
    if column.dtype is DType.TIMESTAMP:
        moments = _moments(values)
        if moments is not None:
            return moments, {}
    parsed: list[Any] = []
    problems: dict[int, str] = {}
    for i, value in enumerate(values):
        try:
            parsed.append(_parsed(column, value))
        except RequestError as error:
            parsed.append(None)
            problems[i] = f"{error.thing} {error.problem}"
    return pa.array(parsed, kind), problems


def _parsed(column: Column, value: Any) -> Any:  # noqa: ANN401 - JSON values
    if value is None:
        return None
    if column.dtype in {DType.FLOAT32, DType.FLOAT64} and type(value) is float:
        return value  # NaN and infinities too
    if column.dtype is DType.TIMESTAMP and isinstance(value, str):
        return _moment(column, value)
    parsed = parse_field(column, value)
    return parsed.item() if isinstance(parsed, np.generic) else parsed


def _moments(values: Sequence[Any]) -> pa.Array | None:
    """Return ISO 8601 texts with a zone as microseconds, or None if they are not all of that kind."""
    if not set(map(type, values)) <= {str, _NONE}:
        return None
    try:
        return pa.array(values, pa.string()).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    except pa.ArrowException:
        return None


def _moment(column: Column, value: str) -> int:
    found = parse_time(value)
    if found is None:
        fix = "send an ISO 8601 time, or microseconds since the epoch"
        raise RequestError(f"field {column.name!r}", "is not a valid timestamp", value=value, fix=fix)
    return found[0]
