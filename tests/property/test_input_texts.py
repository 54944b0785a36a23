"""Columns become the JSON text of their rows, the keys of their entities and the same parsed values as row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.keys import KeyCodec, parse_key
from skewless.contract.request import _MANY, _parse_column, _parse_each, parse_field
from skewless.serving.prediction.input_texts import ColumnRows, input_texts

TEXT = st.text(max_size=4) | st.sampled_from(['"', "\\", '","', "%s", "%", "a,b", "\0", "{|}", "\n"])
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
KINDS = [TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), NUMBERS | st.none() | st.booleans()]
KINDS += [TEXT | st.none(), TEXT | NUMBERS]


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    n = draw(st.integers(1, 8))
    names = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))
    return {name: draw(st.lists(draw(st.sampled_from(KINDS)), min_size=n, max_size=n)) for name in names}


@given(given_columns=columns())
def test_the_text_of_columns_is_that_of_their_rows(given_columns: dict[str, list[Any]]) -> None:
    names = list(given_columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*given_columns.values(), strict=True)]
    seen = ColumnRows(given_columns)
    assert (list(seen), len(seen), seen[0], seen[-1], seen[1:]) == (rows, len(rows), rows[0], rows[-1], rows[1:])
    assert input_texts(seen) == input_texts(rows) == [orjson.dumps(row) for row in rows]


def test_an_integer_beyond_64_bits_is_text_too() -> None:
    assert input_texts(ColumnRows({"a": [2**70, 1]})) == [b'{"a":%d}' % 2**70, b'{"a":1}']


@given(values=st.lists(TEXT, min_size=16, max_size=40))
def test_many_texts_have_the_keys_of_each(values: list[str]) -> None:
    codec = KeyCodec.__new__(KeyCodec)
    codec._names, codec._prefix = ("shop_id",), b"sk:p:0:{shop_id"
    assert codec.encode_columns({"shop_id": values}) == [codec.encode([value]) for value in values]


@given(data=st.data(), dtype=st.sampled_from([DType.FLOAT32, DType.FLOAT64, DType.STRING]))
def test_many_values_are_parsed_as_one_by_one(data: st.DataObject, dtype: DType) -> None:
    column = Column(name="a", dtype=dtype)
    usual = st.text(max_size=3) if dtype is DType.STRING else st.floats(width=32, allow_nan=False, allow_infinity=False)
    odd = st.sampled_from([None, 1, True, "1", "\ud800", np.inf, np.nan, 1e39, -1e39, 3.4028236e38])
    values = data.draw(st.lists(usual, min_size=_MANY, max_size=_MANY + 4))
    for at in data.draw(st.lists(st.integers(0, _MANY - 1), max_size=2)):
        values[at] = data.draw(odd)
    parse = parse_key if dtype is DType.STRING else parse_field
    assert _outcome(_parse_column, column, values, parse) == _outcome(_parse_each, column, values, parse)


def _outcome(parse_all: Any, *args: Any) -> str:  # noqa: ANN401 - two functions with the same arguments
    try:
        return repr([float(value) if isinstance(value, float) else value for value in parse_all(*args)])
    except RequestError as error:
        return error.sentence()
