"""Parse the rows of a request: JSON objects to keys and request fields; each error names the row and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from skewless.contract.clock import parse_time, to_us
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.keys import KeyValue, parse_key
from skewless.contract.plan import FeaturePlan

_INTEGER_LIMIT = {DType.INT32: 2**31, DType.INT64: 2**63, DType.TIMESTAMP: 2**63}
_FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
_MANY = 64  # values from which on numpy is faster than a call per value
_DIGITS = re.compile(r"-?[0-9]{1,19}\Z")
# From this number on, rounding to float32 gives infinity: half a step above the greatest float32.
_FLOAT32_LIMIT = 2.0**128 - 2.0**103


@dataclass(frozen=True, kw_only=True)
class ParsedRows:
    """The parsed rows of a request.

    Args:
        keys: per join key, its value in each row.
        fields: per request field, an array of shape ``(n,)`` as transforms see it.
    """

    keys: Mapping[str, Sequence[KeyValue | None]]
    fields: Mapping[str, npt.NDArray[Any]]

    @property
    def n(self) -> int:
        """Return the number of rows."""
        columns: list[Sequence[Any] | npt.NDArray[Any]] = [*self.keys.values(), *self.fields.values()]
        return len(columns[0]) if columns else 0


class RowParser:
    """Parses the rows of requests to one service; it prepares all look-ups once.

    Args:
        plan: the part of the plan that the service needs.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._keys = plan.join_keys
        self._request = plan.request
        self._parsers: list[tuple[Column, Any]] = [(column, parse_key) for column in plan.join_keys]
        self._parsers += [(column, parse_field) for column in plan.request]
        self._names = {column.name: parse is parse_key or is_nullable(column.dtype) for column, parse in self._parsers}
        limits = [(column.name, _INTEGER_LIMIT.get(column.dtype, 0)) for column in plan.join_keys]
        self._plain_keys = () if plan.request else tuple(limits)

    def parse_rows(self, rows: Sequence[object]) -> dict[str, Sequence[Any]]:
        """Return the rows of a request as columns in the plan's types: keys first, then request fields.

        Raises:
            RequestError: an unknown or missing field, or a value of the wrong type.
        """
        if len(rows) == 1:
            return self._parse_one(rows[0])
        checked = [_check_names(f"row {i}", row, self._names) for i, row in enumerate(rows)]
        return {
            column.name: _parse_column(column, [row[column.name] for row in checked], parse)
            for column, parse in self._parsers
        }

    def _parse_one(self, row: object) -> dict[str, Sequence[Any]]:
        """Return one row as ``parse_rows`` does; most requests have one row, so this path is short."""
        if self._plain_keys and (columns := self._plain_columns(row)) is not None:
            return columns
        checked = _check_names("row 0", row, self._names)
        try:
            return {column.name: [parse(column, checked[column.name])] for column, parse in self._parsers}
        except SkewlessError:
            # Parsed again by the slower path, which names the row in the error.
            return {
                column.name: _parse_column(column, [checked[column.name]], parse) for column, parse in self._parsers
            }

    def _plain_columns(self, row: Any) -> dict[str, Sequence[Any]] | None:  # noqa: ANN401 - any JSON value
        """Return a row of integers in range and ASCII texts without a call per value; None: another kind of row."""
        if type(row) is not dict or len(row) != len(self._plain_keys):
            return None
        columns: dict[str, Sequence[Any]] = {}
        for name, limit in self._plain_keys:
            value = row.get(name)
            if limit:
                if type(value) is not int or not -limit <= value < limit:
                    return None
            elif type(value) is not str or not value.isascii():
                return None
            columns[name] = [value]
        return columns

    def parse_columns(self, columns: Mapping[str, Sequence[object]]) -> dict[str, Sequence[Any]]:
        """Return parallel columns of a request in the plan's types: keys first, then request fields.

        Raises:
            RequestError: an unknown or missing field, columns of unequal length, or a value of the wrong type.
        """
        checked = _check_names("the columns", columns, self._names)
        if len(set(map(len, checked.values()))) > 1:
            lengths = {name: len(values) for name, values in checked.items()}
            raise RequestError(
                "the columns", "have different lengths", value=lengths, fix="send one value for each row"
            )
        return {column.name: _parse_column(column, checked[column.name], parse) for column, parse in self._parsers}

    def build_rows(self, columns: Mapping[str, Sequence[Any]]) -> ParsedRows:
        """Return parsed columns in the form that readers and transforms take."""
        return ParsedRows(
            keys={column.name: columns[column.name] for column in self._keys},
            fields={column.name: _field_array(column, columns[column.name]) for column in self._request},
        )


def check_count(n: int, max_rows: int) -> None:
    """Check the number of rows of a request.

    Raises:
        RequestError: n is 0, or larger than ``max_rows``.
    """
    if not n:
        raise RequestError("field 'rows'", "is empty", fix="send at least one row")
    if n > max_rows:
        raise RequestError("field 'rows'", f"has more than {max_rows} rows", value=n, fix="send several requests")


def parse_rows(plan: FeaturePlan, rows: Sequence[object], max_rows: int) -> ParsedRows:
    """Return the rows of one request in the plan's types; see ``check_count`` and ``RowParser.parse_rows``."""
    check_count(len(rows), max_rows)
    parser = RowParser(plan)
    return parser.build_rows(parser.parse_rows(rows))


def _parse_column(column: Column, values: Sequence[Any], parse: Any) -> Sequence[Any]:  # noqa: ANN401 - one of two parsers
    if parse is parse_key:
        return _parse_keys(column, values)
    return _parse_floats(column, values) if column.dtype in _FLOATS else _parse_each(column, values, parse)


def _parse_keys(column: Column, values: Sequence[Any]) -> Sequence[KeyValue | None]:
    limit = _INTEGER_LIMIT.get(column.dtype, 0)
    kinds = set(map(type, values))
    # The common case: a column of integers in range is returned unchanged, without a call per value.
    if limit and kinds == {int} and -limit <= min(values) and max(values) < limit:
        return values
    if column.dtype is DType.STRING and kinds == {str} and _is_unicode(values):
        return values
    return _parse_each(column, values, parse_key)


def _is_unicode(values: Sequence[str]) -> bool:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_floats(column: Column, values: Sequence[Any]) -> Sequence[float]:
    """Return a long column of floats and nulls without a call per value."""
    if len(values) >= _MANY and set(map(type, values)) <= {float, type(None)}:
        numbers = np.array(values, dtype=np.float64)  # null becomes NaN
        limit = _FLOAT32_LIMIT if column.dtype is DType.FLOAT32 else np.inf
        if np.count_nonzero(np.abs(numbers) < limit) + values.count(None) == len(values):
            return cast("list[float]", numbers.tolist())
    return _parse_each(column, values, parse_field)


def parse_field(column: Column, value: object) -> object:
    """Return one request field in the plan's type; null is allowed for floats and text only.

    Raises:
        RequestError: the value has another type or is out of range.
    """
    if value is None:
        if is_nullable(column.dtype):
            return None if column.dtype.is_text else np.nan
        raise RequestError(f"field {column.name!r}", "is null", fix=f"send a value: a {column.dtype} has no null")
    if column.dtype in {DType.FLOAT32, DType.FLOAT64}:
        return _parse_float(column, value)
    if column.dtype in _INTEGER_LIMIT:
        return _parse_integer(column, value)
    if column.dtype is DType.BOOL:
        if isinstance(value, bool):
            return value
        raise _invalid(column, value, "send a JSON boolean")
    return _parse_text(column, value)


def request_value(value: object, dtype: DType) -> object:
    """Return a value of a table as JSON has it; a parser rejects times without a zone and other text.

    >>> [request_value(text, DType.FLOAT64) for text in ("1.50", "nan", "1_000", "yes")]
    [1.5, None, '1_000', 'yes']
    """
    if isinstance(value, date):
        return to_us(value) if isinstance(value, datetime) and value.tzinfo else value.isoformat()
    if isinstance(value, str) and dtype is DType.BOOL:
        return {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, str) and dtype is DType.TIMESTAMP and _DIGITS.match(value):
        return int(value)
    if isinstance(value, str | Decimal) and dtype in _FLOATS and f"{value}".isascii() and "_" not in f"{value}":
        with suppress(ValueError):
            value = float(value)
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


def is_nullable(dtype: DType) -> bool:
    """Say whether a request field of this type may be null."""
    return dtype.is_text or dtype in _FLOATS


def _check_names(thing: str, row: Any, names: Mapping[str, bool]) -> Mapping[str, Any]:  # noqa: ANN401 - of a request
    """Return a row that has exactly these names; their values say whether a field may be null."""
    if not isinstance(row, dict):
        raise RequestError(thing, "is not an object", value=row, fix=f"send {{{', '.join(sorted(names))}}}")
    if row.keys() == names.keys():
        return row
    for name in row:
        if name not in names:
            raise RequestError(thing, "has an unknown field", value=name, fix=f"send only {', '.join(sorted(names))}")
    for name in sorted(names):
        if name not in row:
            fix = "send it; null means unknown" if names[name] else "send it; it must not be null"
            raise RequestError(thing, f"has no field {name!r}", fix=fix)
    return row


def _parse_each(column: Column, values: Sequence[object], parse: Any) -> list[Any]:  # noqa: ANN401 - one of two parsers
    parsed = []
    for i, value in enumerate(values):
        try:
            parsed.append(parse(column, value))
        except SkewlessError as error:
            raise RequestError(f"row {i} {error.thing}", error.problem, value=error.value, fix=error.fix) from error
    return parsed


def _field_array(column: Column, values: Sequence[Any]) -> npt.NDArray[Any]:
    if column.dtype.is_text:
        objects = np.empty(len(values), dtype=object)
        objects[:] = values
        return objects
    if column.dtype in {DType.FLOAT32, DType.FLOAT64}:
        # Rounded to the declared type first, and then widened, as the values of views are.
        return np.array(values, dtype=column.dtype.numpy).astype(np.float64)
    return np.array(values, dtype=np.bool_ if column.dtype is DType.BOOL else np.int64)


def _parse_float(column: Column, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(column, value, "send a JSON number, or null if it is unknown")
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise _invalid(column, value, "send null if it is unknown: NaN and infinities are not JSON")
    if column.dtype is DType.FLOAT32 and abs(number) >= _FLOAT32_LIMIT:
        raise _invalid(column, value, "send a number in the range of float32")
    return number


def _parse_integer(column: Column, value: object) -> int:
    if column.dtype is DType.TIMESTAMP and isinstance(value, str):
        return _parse_timestamp(column, value)
    if isinstance(value, str) and _DIGITS.match(value):
        value = int(value)
    if type(value) is not int or not -_INTEGER_LIMIT[column.dtype] <= value < _INTEGER_LIMIT[column.dtype]:
        kind = "microseconds since the epoch or an ISO 8601 time" if column.dtype is DType.TIMESTAMP else "an integer"
        raise _invalid(column, value, f"send {kind}")
    return value


def _parse_text(column: Column, value: object) -> str | bytes:
    if not isinstance(value, str):
        raise _invalid(column, value, "send a JSON string")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise _invalid(column, value, "send well-formed text") from None
    return encoded if column.dtype is DType.BYTES else value


def _parse_timestamp(column: Column, value: str) -> int:
    parsed = parse_time(value)
    if parsed is None:
        raise _invalid(column, value, "send an ISO 8601 time with a zone, or microseconds since the epoch")
    if not parsed[1]:
        raise _invalid(column, value, "add the zone, for example 'Z'")
    return parsed[0]


def _invalid(column: Column, value: object, fix: str) -> RequestError:
    return RequestError(f"field {column.name!r}", f"is not a valid {column.dtype}", value=value, fix=fix)
