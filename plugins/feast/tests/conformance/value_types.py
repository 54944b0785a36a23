"""Every value type of Feast 0.67: what a source holds, and what a read gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal as Exact
from typing import Any
from uuid import UUID

import pyarrow as pa
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    FeastType,
    Float32,
    Float64,
    ImageBytes,
    Int32,
    Int64,
    Json,
    Map,
    PdfBytes,
    ScalarMap,
    Set,
    String,
    Struct,
    TimeUuid,
    UnixTimestamp,
    Uuid,
    ZonedTimestamp,
)

STAMP = pa.timestamp("us", tz="UTC")
TIMES = [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]
IDS = ["6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b811-9dad-11d1-80b4-00c04fd430c8"]
_MAPS = [{"a": "1", "b": ""}, {"é": "2"}]


def same(value: Any) -> Any:  # noqa: ANN401 - of any type
    """Return a value as it is."""
    return value


@dataclass(frozen=True)
class ValueType:
    """One type.

    Args:
        feast: as it is declared.
        arrow: of the source's column.
        values: two values of the source, as Arrow gives them.
        online: turns such a value into what an online read gives.
        pushed: turns it into what stands in a frame that is pushed.
    """

    feast: FeastType
    arrow: pa.DataType
    values: Sequence[Any]
    online: Callable[[Any], Any] = same
    pushed: Callable[[Any], Any] = same


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [convert(value) for value in values]


SCALARS: dict[str, ValueType] = {
    "Int32": ValueType(Int32, pa.int32(), [2**31 - 1, -(2**31)]),
    "Int64": ValueType(Int64, pa.int64(), [2**53 + 1, -(2**63)]),
    "Float32": ValueType(Float32, pa.float32(), [0.5, -3.0]),
    "Float64": ValueType(Float64, pa.float64(), [0.1, -1e300]),
    "Bool": ValueType(Bool, pa.bool_(), [True, False]),
    "String": ValueType(String, pa.string(), ["é'\"|{}", ""]),
    "Bytes": ValueType(Bytes, pa.binary(), [b"\x00\xff", b""]),
    "PdfBytes": ValueType(PdfBytes, pa.binary(), [b"%PDF", b"\x00"]),
    "ImageBytes": ValueType(ImageBytes, pa.binary(), [b"\x89PNG", b"\x00"]),
    "UnixTimestamp": ValueType(UnixTimestamp, STAMP, TIMES),
    "ZonedTimestamp": ValueType(ZonedTimestamp, STAMP, TIMES),
    "Uuid": ValueType(Uuid, pa.string(), IDS, UUID),
    "TimeUuid": ValueType(TimeUuid, pa.string(), IDS, UUID),
    "Decimal": ValueType(Decimal, pa.string(), ["1.50", "-12345678901234567890.1"], Exact),
    "Json": ValueType(Json, pa.string(), ['{"a": [1, null]}', "[]"], json.loads),
    "Map": ValueType(Map, pa.map_(pa.string(), pa.string()), [list(item.items()) for item in _MAPS], dict, dict),
    "ScalarMap": ValueType(ScalarMap, pa.map_(pa.int64(), pa.string()), [[(1, "a"), (-2, "")], [(3, "b")]], dict, dict),
    "Struct": ValueType(
        Struct({"n": Int64, "s": String}),
        pa.struct([("n", pa.int64()), ("s", pa.string())]),
        [{"n": 2**53 + 1, "s": "a"}, {"n": -1, "s": ""}],
    ),
}
_BASES = ("Int32", "Int64", "Float32", "Float64", "Bool", "String", "Bytes", "UnixTimestamp", "Uuid", "TimeUuid")
_MORE = ("Decimal",)


def _array(base: str) -> ValueType:
    scalar = SCALARS[base]
    values = [list(scalar.values), list(scalar.values[:1])]
    return ValueType(Array(scalar.feast), pa.list_(scalar.arrow), values, _each(scalar.online), _each(scalar.pushed))


def _set(base: str) -> ValueType:
    scalar = SCALARS[base]
    values = [list(scalar.values), list(scalar.values[:1])]
    return ValueType(
        Set(scalar.feast), pa.list_(scalar.arrow), values, lambda items: {scalar.online(item) for item in items}
    )


ARRAYS = {f"Array({base})": _array(base) for base in (*_BASES, *_MORE, "Json", "Map")}
SETS = {f"Set({base})": _set(base) for base in (*_BASES, *_MORE)}
NESTED: dict[str, ValueType] = {
    "Array(Array(Int64))": ValueType(
        Array(Array(Int64)), pa.list_(pa.list_(pa.int64())), [[[1, 2], [2**53 + 1]], [[]]]
    ),
    "Array(Array(Float64))": ValueType(Array(Array(Float64)), pa.list_(pa.list_(pa.float64())), [[[0.1], []], [[1.0]]]),
    "Array(Struct)": ValueType(
        Array(Struct({"n": Int64})), pa.list_(pa.struct([("n", pa.int64())])), [[{"n": 1}, {"n": 2}], [{"n": 3}]]
    ),
}
VALUE_TYPES = SCALARS | ARRAYS | SETS | NESTED
_PLAIN = ("Int32", "Int64", "Float32", "Float64", "Bool", "String", "Bytes", "UnixTimestamp")
GROUPS: dict[str, tuple[str, ...]] = {
    "plain": _PLAIN,  # those that the plan has, whose rows go through the accepted log
    "scalars": tuple(name for name in SCALARS if name not in _PLAIN),
    "arrays": tuple(ARRAYS),
    "sets": tuple(SETS),
    "nested": tuple(NESTED),
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
