"""The columns of events, as they are written in a tag or in Spark's words, and as files have them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.infra.definitions.compiler.event_columns import parse_columns, parse_names, read_file_columns
from tests.worlds.plans import columns


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [
        ("string", DType.STRING),
        ("STRING", DType.STRING),
        ("String", DType.STRING),
        ("float64", DType.FLOAT64),
        ("Float64", DType.FLOAT64),
        ("double", DType.FLOAT64),
        ("float32", DType.FLOAT32),
        ("float", DType.FLOAT32),
        ("int64", DType.INT64),
        ("bigint", DType.INT64),
        ("long", DType.INT64),
        ("int32", DType.INT32),
        ("int", DType.INT32),
        ("integer", DType.INT32),
        ("bool", DType.BOOL),
        ("boolean", DType.BOOL),
        ("timestamp", DType.TIMESTAMP),
        ("UnixTimestamp", DType.TIMESTAMP),
    ],
)
def test_a_type_may_be_spelled_our_way_feasts_or_sparks(spelling: str, dtype: DType) -> None:
    assert parse_columns("source", f"a {spelling}") == columns({"a": dtype})


def test_columns_keep_their_order_and_odd_names() -> None:
    text = "carrier string,arr_delay: double ,\n `two words` bigint, z:int, `SELECT`:boolean"
    assert parse_columns("source", text) == columns(
        {
            "carrier": DType.STRING,
            "arr_delay": DType.FLOAT64,
            "two words": DType.INT64,
            "z": DType.INT32,
            "SELECT": DType.BOOL,
        }
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "source: declares an invalid column .got ''.*name type, name type"),
        ("a", "declares an invalid column .got 'a'"),
        ("a string,", "declares an invalid column .got ''"),
        ("a text", "source column 'a': has a type that events cannot have .got 'text'.*use one of int32"),
        ("a decimal(10,2), b int", r"column 'a': has a type that .*got 'decimal\(10,2\)'"),
        ("a array<map<int,int>>", "column 'a': has a type that .*got 'array<map<int,int>>'"),
        ("a bytes", "column 'a': has a type that events cannot have .got 'bytes'"),
        ("a int NOT NULL", "column 'a': has a type that events cannot have .got 'int NOT NULL'"),
        ('{"type": "object"}', "source"),
        ("__a int", "source column: has a reserved name .got '__a'"),
        ("a int, a string", "source: declares a column twice .got 'a'"),
        ("a int, A string", "has names that differ only in case.*got 'a and A'"),
    ],
)
def test_what_is_no_column_is_refused(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_columns("source", text)


def test_names_are_listed_with_commas() -> None:
    assert parse_names(" a,b , two words,") == ["a", "b", "two words"]


def test_a_file_gives_the_columns_that_events_can_have() -> None:
    schema = pa.schema(
        {
            "s": pa.string(),
            "l": pa.large_string(),
            "d": pa.dictionary(pa.int32(), pa.string()),
            "b": pa.bool_(),
            "t": pa.timestamp("ns", tz="UTC"),
            "day": pa.date32(),
            "f2": pa.float16(),
            "f4": pa.float32(),
            "f8": pa.float64(),
            "i1": pa.int8(),
            "u2": pa.uint16(),
            "i4": pa.int32(),
            "u4": pa.uint32(),
            "i8": pa.int64(),
            "u8": pa.uint64(),
            "bytes": pa.binary(),
            "list": pa.list_(pa.int64()),
            "nothing": pa.null(),
            "ts": pa.timestamp("us", tz="UTC"),
        }
    )
    assert read_file_columns(schema, ["ts", None]) == columns(
        {
            "s": DType.STRING,
            "l": DType.STRING,
            "d": DType.STRING,
            "b": DType.BOOL,
            "t": DType.TIMESTAMP,
            "day": DType.TIMESTAMP,
            "f2": DType.FLOAT32,
            "f4": DType.FLOAT32,
            "f8": DType.FLOAT64,
            "i1": DType.INT32,
            "u2": DType.INT32,
            "i4": DType.INT32,
            "u4": DType.INT64,
            "i8": DType.INT64,
        }
    )
