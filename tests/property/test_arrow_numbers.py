"""Columns convert between Arrow, numpy and Python as ``pa.array`` and ``to_numpy`` do, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.arrow_numbers import (
    filled_numbers,
    find_nulls,
    int64_array,
    numbers,
    shared_numbers,
    typed_array,
)
from skewless.contract.dtypes import DType
from skewless.contract.window_events import plain_column
from skewless.contract.windows.aggregate_inputs import _numbers
from skewless.contract.windows.sketch import hash_texts
from skewless.infra.reads.offline.arrays import to_numpy

_EDGE = 2**63 - 1
_INTS = st.sampled_from([0, -1, 2**53 + 1, -(2**53) - 1, _EDGE, -_EDGE - 1]) | st.integers(-_EDGE - 1, _EDGE)
_TEXTS = st.sampled_from(["", "é", "\x00", "a\x00", "日本", "👍🏽"]) | st.text(max_size=5)
_TIME = pa.timestamp("us", tz="UTC")
_VALUES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint8(), st.integers(0, 255)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), _INTS),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.sampled_from([-0.0, float("nan"), float("-inf"), 5e-324]) | st.floats()),
    (pa.bool_(), st.booleans()),
    (_TIME, _INTS),
]
_TYPED: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    *_VALUES,
    (pa.string(), _TEXTS),
    (pa.large_string(), _TEXTS),
    (pa.binary(), _TEXTS.map(str.encode)),
]


@st.composite
def _columns(draw: st.DrawFn, kinds: Sequence[tuple[pa.DataType, st.SearchStrategy[Any]]]) -> pa.ChunkedArray:
    """Chunks that begin and end within larger arrays, whose nulls have any bytes."""
    kind, values = draw(st.sampled_from(kinds))
    chunks = []
    for rows in draw(st.lists(st.lists(values, max_size=20), max_size=3)):
        chunk = pa.array(rows, kind)
        if draw(st.booleans()):
            is_valid = np.array([draw(st.booleans()) for _ in rows], np.bool_)
            bits = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
            chunk = pa.Array.from_buffers(kind, len(rows), [bits, *chunk.buffers()[1:]])
        first = draw(st.integers(0, len(rows)))
        chunks.append(chunk.slice(first, draw(st.integers(0, len(rows) - first))))
    return pa.chunked_array(chunks, kind)


def _assert_same_bits(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def _filled(column: pa.Array | pa.ChunkedArray, fill: float) -> npt.NDArray[Any]:
    return np.array(column.fill_null(pa.scalar(fill, column.type)).to_numpy(zero_copy_only=False))


def _hash(text: str) -> int:
    return min(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little"), 2**64 - 2)


@given(column=_columns(_VALUES[:6]))
def test_numbers_are_those_of_arrow(column: pa.ChunkedArray) -> None:
    for part in (column, *column.chunks):
        options = {} if isinstance(part, pa.ChunkedArray) else {"zero_copy_only": False}
        _assert_same_bits(numbers(part), part.to_numpy(**options))
        _assert_same_bits(filled_numbers(part, 7), _filled(part, 7))
    for chunk in column.chunks:
        shared = shared_numbers(chunk, 7)
        _assert_same_bits(shared, _filled(chunk, 7))
        assert shared.flags.writeable == (not len(chunk) or chunk.null_count > 0)


@given(column=_columns(_TYPED))
def test_nulls_are_those_of_arrow(column: pa.ChunkedArray) -> None:
    for part in (column, *column.chunks):
        assert find_nulls(part).dtype == np.bool_
        assert find_nulls(part).tolist() == [value.as_py() is None for value in part]


@given(column=_columns(_VALUES))
def test_transforms_receive_the_floats_of_arrow(column: pa.ChunkedArray) -> None:
    array = column.combine_chunks()
    plain = array if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) else array.cast(pa.int64())
    expected = plain.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    _assert_same_bits(plain_column(array), np.asarray(expected, dtype=np.float64))


@given(column=_columns([*_VALUES[2:4], *_VALUES[5:]]))
def test_aggregates_receive_the_numbers_of_arrow(column: pa.ChunkedArray) -> None:
    array = column.combine_chunks()
    values, null = _numbers(array)
    plain = array.cast(pa.int64()) if pa.types.is_boolean(array.type) or pa.types.is_timestamp(array.type) else array
    expected = _filled(plain, 0)
    expected = expected.astype(np.float64 if expected.dtype.kind == "f" else np.int64)
    _assert_same_bits(values, expected)
    is_nan = np.isnan(expected) if expected.dtype.kind == "f" else np.zeros(len(expected), np.bool_)
    assert null.tolist() == (np.array(array.is_null().to_pylist(), np.bool_) | is_nan).tolist()


@given(column=_columns(_VALUES[6:]))
def test_flags_and_times_are_those_of_arrow(column: pa.ChunkedArray) -> None:
    dtype = DType.BOOL if column.type == pa.bool_() else DType.TIMESTAMP
    filled = column.fill_null(pa.scalar(0, pa.int64()).cast(column.type))
    _assert_same_bits(to_numpy(column, dtype), np.asarray(filled.to_numpy()).astype(dtype.numpy))


@given(column=_columns(_TYPED[8:10]))
def test_texts_have_the_hashes_of_their_python_values(column: pa.ChunkedArray) -> None:
    texts = column.combine_chunks()
    hashes = zip(hash_texts(texts).tolist(), texts.to_pylist(), strict=True)
    assert all(hashed == _hash(text) for hashed, text in hashes if text is not None)


@given(column=_columns(_TYPED))
def test_an_array_of_python_values_equals_that_of_arrow(column: pa.ChunkedArray) -> None:
    values = (column.cast(pa.int64()) if column.type == _TIME else column).to_pylist()
    kind = pa.int64() if column.type == _TIME else column.type
    array = typed_array(values, kind)
    array.validate(full=True)
    # Arrow compares NaN with NaN as unequal; the text of a float has all its bits.
    assert (array.type, list(map(repr, array.to_pylist()))) == (
        kind,
        list(map(repr, pa.array(values, kind).to_pylist())),
    )
    assert array.null_count == values.count(None)


@pytest.mark.parametrize(
    ("values", "kind"),
    [([2**63], pa.int64()), (["1"], pa.int64()), ([1], pa.string()), (["\ud800"], pa.string())],
)
def test_values_of_another_type_are_rejected(values: list[Any], kind: pa.DataType) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError)):
        typed_array(values, kind)


def test_many_values_are_converted_by_arrow() -> None:
    values = [*range(-20_000, 20_000), None]
    assert typed_array(values, pa.int64()).equals(pa.array(values, pa.int64()))
    texts = [None if value is None else f"é{value}" for value in values]
    assert typed_array(texts, pa.string()).equals(pa.array(texts, pa.string()))


def test_numpy_integers_are_accepted() -> None:
    assert typed_array([np.int64(2**53 + 1), None], pa.int64()).to_pylist() == [2**53 + 1, None]


@given(values=st.lists(_INTS | st.none(), max_size=20))
def test_an_array_of_integers_equals_that_of_arrow(values: list[int | None]) -> None:
    is_null = np.array([value is None for value in values], np.bool_)
    array = int64_array(np.array([value or 0 for value in values], np.int64), is_null)
    array.validate(full=True)
    assert array.equals(pa.array(values, pa.int64()))
