"""Convert Feast's ``Value`` messages to packed columns and back, bit for bit, and entity keys to online keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, RepeatedValue, Value
from feast.value_type import ValueType

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.keys import KeyValue, parse_key
from skewless.contract.status import BoolArray
from skewless_feast.stored_views import DUMMY_KEY, OPAQUE, StoredView

SECOND_US = 1_000_000

# Feast's null of timestamps: numpy's NaT.
_NO_TIME = -(2**63)
# Narrower types that a column also accepts.
_WIDENED = {"int64_val": "int32_val", "double_val": "float_val"}
_NEVER_NULL = frozenset({"int32_val", "int64_val", "float_val", "double_val", "bool_val", "string_val", "bytes_val"})

_NESTED = frozenset({ValueType.VALUE_LIST, ValueType.VALUE_SET})
_EMPTY = Value(int64_list_val=Int64List())

Columns = Mapping[str, npt.NDArray[Any]]
Nulls = Mapping[str, BoolArray]
_DUMMY = (DUMMY_KEY, Value(string_val=""))
_KINDS = {DType.INT32: "int32_val", DType.INT64: "int64_val", DType.STRING: "string_val"}


def value_field(value: Value | None) -> str | None:
    """Return the name of the field that is set in a value, None for null.

    >>> value_field(Value(int64_val=1)), value_field(Value()), value_field(Value(null_val=0))
    ('int64_val', None, None)
    """
    kind: str | None = None if value is None else value.WhichOneof("val")
    if kind == "null_val" or (kind == "unix_timestamp_val" and value and value.unix_timestamp_val == _NO_TIME):
        return None
    return kind


def pack_values(stored: StoredView, rows: Sequence[Mapping[str, Value]]) -> tuple[Columns, Nulls]:
    """Return the columns of some rows' values, and where they are null, shape ``(n,)`` each.

    Raises:
        SourceError: a value has another type than its feature.
    """
    values, nulls = {}, {}
    for column in stored.view.features:
        name, kind = column.name, stored.kinds[column.name]
        messages = [row.get(name) for row in rows]
        kinds = _kinds(messages, kind)
        nulls[name] = np.fromiter((item is None for item in kinds), dtype=np.bool_, count=len(kinds))
        if kind == OPAQUE:
            nested = stored.types[name] in _NESTED
            complete = [value and _restore_empty_lists(value) for value in messages] if nested else messages
            pairs = zip(complete, kinds, strict=True)
            values[name] = _objects(
                [value.SerializeToString(deterministic=True) if value and item else None for value, item in pairs]
            )
        else:
            values[name] = _array(stored, column, _plain(column, kind, messages, kinds))
    return values, nulls


def _kinds(messages: Sequence[Value | None], kind: str) -> Sequence[str | None]:
    if kind in _NEVER_NULL and None not in messages:
        # The usual case without a check of each value: all are set, and of the declared type.
        kinds = [value.WhichOneof("val") for value in messages if value is not None]
        if set(kinds) == {kind}:
            return kinds
    return [value_field(value) for value in messages]


def _restore_empty_lists(value: Value) -> Value:
    """Return a list of lists with empty lists instead of nulls: Feast writes empty inner lists as null."""
    kind = value_field(value)
    if kind not in {"list_val", "set_val"}:
        return value
    inner = [_EMPTY if value_field(item) is None else _restore_empty_lists(item) for item in getattr(value, kind).val]
    return Value(**{kind: RepeatedValue(val=inner)})


def _plain(column: Column, kind: str, messages: Sequence[Value | None], kinds: Sequence[str | None]) -> list[Any]:
    other_kinds = set(kinds) - {kind, _WIDENED.get(kind, kind), None}
    if other_kinds:
        raise SourceError(
            f"feature {column.name!r}",
            f"is declared as {column.dtype}, but a value has another type",
            value=min(str(item) for item in other_kinds),
            fix="send the declared type, or correct the schema of the feature view",
        )
    if set(kinds) == {kind}:
        return list(map(attrgetter(kind), messages))
    return [getattr(value, item) if item else None for value, item in zip(messages, kinds, strict=True)]


def _array(stored: StoredView, column: Column, plain: list[Any]) -> npt.NDArray[Any]:
    if column.dtype.is_text:
        return _objects(plain)
    numbers = np.array([0 if value is None else value for value in plain], dtype=column.dtype.numpy)
    if column.dtype is not DType.TIMESTAMP:
        return numbers
    # numpy's product below would wrap around without an error.
    if len(numbers) and max(int(numbers.max()), -int(numbers.min())) > 2**63 // SECOND_US:
        raise SourceError(
            f"view {stored.view.name!r} feature {column.name!r}",
            "has a time out of the range of microseconds",
            value=int(numbers[np.abs(numbers).argmax()]),
            fix="send seconds since the epoch",
        )
    return numbers * SECOND_US


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def unpack_values(kind: str, values: npt.NDArray[Any], has_value: Sequence[bool]) -> list[Value]:
    """Return one message per entry; empty without a value.

    Args:
        kind: the field of ``Value``, or ``OPAQUE``.
        values: a column from the row codec.
    """
    pairs = zip(values.tolist(), has_value, strict=True)
    if kind == OPAQUE:
        return [Value.FromString(value) if ok else Value() for value, ok in pairs]
    if kind == "unix_timestamp_val":
        # Feast's messages have whole seconds; floor division also rounds times before 1970 down.
        return [Value(unix_timestamp_val=value // SECOND_US) if ok else Value() for value, ok in pairs]
    return [Value(**{kind: value}) if ok else Value() for value, ok in pairs]


def parse_keys(keys: Sequence[Column], columns: Mapping[str, Sequence[Value]]) -> dict[str, list[KeyValue | None]]:
    """Return key columns as plain values, None for null.

    Raises:
        RequestError: a value has another type than its key.
    """
    return {column.name: _values(column, columns[column.name]) for column in keys}


def key_columns(keys: Sequence[EntityKey]) -> dict[str, list[Value]]:
    """Return entity keys as columns; Feast passes the key of a view without entities as empty or as a dummy.

    >>> sorted(key_columns([EntityKey(join_keys=["id"], entity_values=[Value(int64_val=1)])]))
    ['id']
    """
    columns: dict[str, list[Value]] = {}
    for key in keys:
        named = zip(key.join_keys, key.entity_values, strict=True) if key.join_keys else [_DUMMY]
        for name, value in named:
            columns.setdefault(name, []).append(value)
    return columns


def _values(column: Column, values: Sequence[Value]) -> list[KeyValue | None]:
    kinds = [value_field(value) for value in values]
    pairs = zip(values, kinds, strict=True)
    if column.dtype is DType.BYTES:
        # The serialized message includes the type, so keys of different types are never equal.
        return [value.SerializeToString(deterministic=True).hex() if kind else None for value, kind in pairs]
    if set(kinds) <= {_KINDS[column.dtype]}:
        return [getattr(value, _KINDS[column.dtype]) for value in values]
    return [parse_key(column, getattr(value, kind)) if kind else None for value, kind in pairs]
