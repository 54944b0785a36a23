"""Feast's ``Value`` messages to packed columns and back, exact to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from feast.protos.feast.types.Value_pb2 import Int64List, RepeatedValue, Value
from feast.value_type import ValueType

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.status import BoolArray
from skewless.infra.feast_plugins.stored_views import OPAQUE, StoredView

SECOND_US = 1_000_000

# Feast's null among timestamps: numpy's NaT.
_NO_TIME = -(2**63)
# What else a column takes because nothing is lost.
_WIDENED = {"int64_val": "int32_val", "double_val": "float_val"}
_NEVER_NULL = frozenset({"int32_val", "int64_val", "float_val", "double_val", "bool_val", "string_val", "bytes_val"})

_NESTED = frozenset({ValueType.VALUE_LIST, ValueType.VALUE_SET})
_EMPTY = Value(int64_list_val=Int64List())

Columns = Mapping[str, npt.NDArray[Any]]
Nulls = Mapping[str, BoolArray]


def kind_of(value: Value | None) -> str | None:
    """Return the field that a value stands in, None for null.

    >>> kind_of(Value(int64_val=1)), kind_of(Value()), kind_of(Value(null_val=0))
    ('int64_val', None, None)
    """
    kind: str | None = None if value is None else value.WhichOneof("val")
    if kind == "null_val" or (kind == "unix_timestamp_val" and value and value.unix_timestamp_val == _NO_TIME):
        return None
    return kind


def pack_values(stored: StoredView, rows: Sequence[Mapping[str, Value]]) -> tuple[Columns, Nulls]:
    """Return the columns of some rows' values, and where they are null: shape ``(n,)`` each.

    Raises:
        SourceError: a value has another type than its feature.
    """
    values, nulls = {}, {}
    for column in stored.view.features:
        name, kind = column.name, stored.kinds[column.name]
        found = [row.get(name) for row in rows]
        kinds = _kinds(found, kind)
        nulls[name] = np.fromiter((item is None for item in kinds), dtype=np.bool_, count=len(kinds))
        if kind == OPAQUE:
            nested = stored.types[name] in _NESTED
            whole = [value and _with_empty_lists(value) for value in found] if nested else found
            values[name] = _objects(_serialised(whole, kinds))
        else:
            values[name] = _array(stored, column, _plain(column, kind, found, kinds))
    return values, nulls


def _kinds(found: Sequence[Value | None], kind: str) -> Sequence[str | None]:
    if kind in _NEVER_NULL and None not in found:
        kinds = [value.WhichOneof("val") for value in found if value is not None]
        if set(kinds) == {kind}:
            return kinds
    return [kind_of(value) for value in found]


def _with_empty_lists(value: Value) -> Value:
    """Return a list of lists whose empty lists are lists: Feast writes them as null, which no list may hold here."""
    kind = kind_of(value)
    if kind not in {"list_val", "set_val"}:
        return value
    inner = [_EMPTY if kind_of(item) is None else _with_empty_lists(item) for item in getattr(value, kind).val]
    return Value(**{kind: RepeatedValue(val=inner)})


def _serialised(found: Iterable[Value | None], kinds: Iterable[str | None]) -> list[bytes | None]:
    pairs = zip(found, kinds, strict=True)
    return [None if value is None or not kind else value.SerializeToString(deterministic=True) for value, kind in pairs]


def _plain(column: Column, kind: str, found: Sequence[Value | None], kinds: Sequence[str | None]) -> list[Any]:
    strange = set(kinds) - {kind, _WIDENED.get(kind, kind), None}
    if strange:
        raise SourceError(
            f"feature {column.name!r}",
            f"is declared as {column.dtype}, but a value has another type",
            value=min(str(item) for item in strange),
            fix="send the declared type, or correct the schema of the feature view",
        )
    if set(kinds) == {kind}:
        return list(map(attrgetter(kind), found))
    return [getattr(value, item) if item else None for value, item in zip(found, kinds, strict=True)]


def _array(stored: StoredView, column: Column, plain: list[Any]) -> npt.NDArray[Any]:
    if column.dtype.is_text:
        return _objects(plain)
    numbers = np.array([0 if value is None else value for value in plain], dtype=column.dtype.numpy)
    if column.dtype is not DType.TIMESTAMP:
        return numbers
    if len(numbers) and max(int(numbers.max()), -int(numbers.min())) > 2**63 // SECOND_US:
        raise SourceError(
            f"view {stored.view.name!r} feature {column.name!r}",
            "holds a time that microseconds cannot count",
            value=int(numbers[np.abs(numbers).argmax()]),
            fix="send seconds since the epoch",
        )
    return numbers * SECOND_US


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def unpack_values(kind: str, values: npt.NDArray[Any], shown: BoolArray) -> list[Value]:
    """Return one message per entry, empty where it is not shown.

    Args:
        kind: the field of ``Value``, or ``OPAQUE``.
        values: a column as the row codec returns it.
    """
    if kind == "unix_timestamp_val":
        values = values // SECOND_US
    pairs = zip(values.tolist(), shown.tolist(), strict=True)
    if kind == OPAQUE:
        return [Value.FromString(value) if ok else Value() for value, ok in pairs]
    return [Value(**{kind: value}) if ok else Value() for value, ok in pairs]
