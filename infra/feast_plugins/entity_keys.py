"""Encode the entity keys that Feast passes to keys of the online store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec, KeyValue, parse_key
from skewless.contract.plan import View
from skewless.infra.feast_plugins.stored_views import DUMMY_KEY
from skewless.infra.feast_plugins.values import value_field

_DUMMY = (DUMMY_KEY, Value(string_val=""))
_KINDS = {DType.INT32: "int32_val", DType.INT64: "int64_val", DType.STRING: "string_val"}


def encode_keys(codec: KeyCodec, view: View, columns: Mapping[str, Sequence[Value]]) -> list[bytes | None]:
    """Return the online key of each row of parallel key columns, None if a part is null.

    Raises:
        RequestError: a value has another type than its key.
    """
    return codec.encode_columns(parse_keys(view.keys, columns))


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
