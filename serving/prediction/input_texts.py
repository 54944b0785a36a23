"""The rows of a request as JSON text for the prediction log; columns become text without an object per row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import orjson


class ColumnRows(Sequence[dict[str, Any]]):
    """Parallel columns of plain JSON values, seen as rows.

    Args:
        columns: of equal length, at least one.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = columns
        self._n = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = list(self.columns)
        return (dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True))

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return list(ColumnRows({name: values[index] for name, values in self.columns.items()}))
        return {name: values[index] for name, values in self.columns.items()}


def input_texts(rows: Sequence[Any]) -> list[bytes]:
    """Return the JSON text of each row.

    >>> input_texts([{"a": 1, "b": None}]) == input_texts(ColumnRows({"a": [1], "b": [None]}))
    True
    """
    if not isinstance(rows, ColumnRows):
        return [_text(row) for row in rows]
    names = [_text(name).replace(b"%", b"%%") + b":%b" for name in rows.columns]
    row_text = b"{" + b",".join(names) + b"}"
    return [row_text % values for values in zip(*map(_value_texts, rows.columns.values()), strict=True)]


def _value_texts(values: Sequence[Any]) -> Sequence[bytes]:
    kinds = set(map(type, values))
    try:
        if kinds == {str}:
            text = orjson.dumps(values)
            # Without an escape no string has a quotation mark, so that only the ends of strings match.
            if b"\\" not in text:
                return [b'"%b"' % part for part in text[2:-2].split(b'","')]
        elif kinds <= {int, float, bool, type(None)}:
            return orjson.dumps(values)[1:-1].split(b",")
    except TypeError:
        pass  # an integer beyond 64 bits
    return [_text(value) for value in values]


def _text(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()  # an integer beyond 64 bits
