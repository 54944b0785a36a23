"""Seals rows of the prediction log: their places in the file that a server wrote, and a checksum of all their columns.

A checksum takes a few numpy operations for each column, and no Python code per row. A value becomes words of 64 bits.
Each word is mixed with its place in the value, and their sum is mixed with the place of the value in its parent: the
list, the struct or the row.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import find_nulls, int64_array, numbers, shared_numbers
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.records.predictions import batches
from skewless.infra.records.predictions.segments import SCHEMA

_Words = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that a product with it can be inverted
_NULL = np.uint64(0xD1B54A32D192ED03)
_BYTES = 8  # of a word


def seal_rows(rows: pa.Table, file: str) -> pa.Table:
    """Return rows of ``CONTENT`` as rows of ``SCHEMA``: sealed as all rows of a file, in their order."""
    sealed: list[pa.RecordBatch] = []
    for batch in rows.to_batches():
        sealed.append(seal_batch(batch, file, first=sum(map(len, sealed)), rows=len(rows)))
    return pa.Table.from_batches(sealed, SCHEMA)


def seal_batch(batch: pa.RecordBatch, file: str, *, first: int, rows: int) -> pa.RecordBatch:
    """Return rows of ``CONTENT`` as rows of ``SCHEMA``.

    Args:
        batch: the rows.
        file: in which they are written.
        first: place of the first of them in it.
        rows: number of rows of the file.
    """
    n = len(batch)
    places = [np.arange(first, first + n, dtype=np.int32), np.full(n, rows, np.int32)]
    columns = [*batch.columns, batches.repeat_words([file], n), *map(batches.numbers, places)]
    unsealed = pa.RecordBatch.from_arrays(columns, SCHEMA.names[:-1])
    return pa.RecordBatch.from_arrays([*columns, int64_array(row_checksums(unsealed))], schema=SCHEMA)


def find_intact(rows: pa.Table) -> BoolArray:
    """Return which rows of the log have the checksum of their columns, shape ``(n,)``."""
    sealed = rows.select(SCHEMA.names).cast(SCHEMA)
    return np.asarray(row_checksums(sealed.drop_columns(["checksum"])) == numbers(sealed["checksum"]), np.bool_)


def row_checksums(rows: pa.Table | pa.RecordBatch) -> Int64Array:
    """Return one 64-bit checksum per row, shape ``(n,)``.

    If two rows differ in one bit, their checksums differ; if they differ in more, except for one pair in 2^64. All NaNs
    count as equal, because they mean a missing value. Rows with other columns have other checksums.

    >>> row_checksums(pa.table({"a": ["x", "x", None], "b": [[1.0], [2.0], []]})).tolist()
    [-8123161342595690927, 3102707480104527716, 5227554365354964205]
    """
    words = np.stack([_words(column) for column in rows.columns], axis=1)
    # Words of zeros stay zeros: the number of columns tells such rows from others, and from one of zeros throughout.
    sums = _mixed(words, np.arange(words.shape[1])).sum(axis=1, dtype=np.uint64) + np.uint64(words.shape[1])
    return np.asarray(sums.view(np.int64))


def _words(column: pa.Array | pa.ChunkedArray, period: int = 1) -> _Words:
    """Return one word for each value.

    Args:
        period: number of values after which texts may repeat, as names of models and views do: that is faster.
    """
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.empty(0, np.uint64), *map(_words, column.chunks)])
    kind = column.type
    if column.null_count == len(column):
        return np.full(len(column), _NULL)
    if pa.types.is_struct(kind):
        fields = np.stack([_words(column.field(i), period) for i in range(kind.num_fields)], axis=1)
        words: _Words = _mixed(fields, np.arange(kind.num_fields)).sum(axis=1, dtype=np.uint64)
    elif pa.types.is_list(kind):
        words = _list_words(column)
    elif pa.types.is_string(kind):
        words = _text_words(column, period)
    else:
        words = _number_words(column)
    if column.null_count:
        words[find_nulls(column)] = _NULL
    return words


def _mixed(words: _Words, place: npt.NDArray[np.int64]) -> _Words:
    """Return words mixed with their places; each step is invertible, so different words stay different."""
    mixed: _Words = words ^ (words >> np.uint64(32))
    mixed *= _STEP * (np.uint64(2) * place.astype(np.uint64) + np.uint64(1))
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _number_words(column: pa.Array) -> _Words:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = shared_numbers(column, 0)
    if pa.types.is_floating(column.type):
        values = values.astype(np.float64)
        values[np.isnan(values)] = np.nan
        return np.asarray(values.view(np.uint64))
    return values.astype(np.int64).view(np.uint64)


def _list_words(column: pa.ListArray) -> _Words:
    ends = _ends(column.buffers()[1], column)
    values, counts = column.values.slice(int(ends[0]), int(ends[-1] - ends[0])), np.diff(ends)
    return _sums(_words(values, int(counts[0]) or 1), counts)


def _text_words(column: pa.StringArray, period: int = 1) -> _Words:
    _, offsets, data = column.buffers()
    ends = _ends(offsets, column)
    content, lengths = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]], np.diff(ends)
    if not len(lengths) % period and (lengths[period:] == lengths[:-period]).all():
        size = int(ends[period] - ends[0])
        if (content[size:] == content[: len(content) - size]).all():
            first = _repeated_words(content[:size].tobytes(), tuple(lengths[:period].tolist()))
            return np.tile(first, len(lengths) // period)
    return _sum_bytes(content, lengths)


@lru_cache(1_000)
def _repeated_words(content: bytes, lengths: tuple[int, ...]) -> _Words:
    return _sum_bytes(np.frombuffer(content, np.uint8), np.array(lengths))


def _sum_bytes(content: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> _Words:
    """Return one word for each text, of their bytes end to end."""
    padded = np.concatenate([content, np.zeros(_BYTES, np.uint8)])
    counts, starts = -(-lengths // _BYTES), np.cumsum(lengths) - lengths
    at = _BYTES * _places(counts)
    at_byte: _Words = np.ndarray((len(content) + 1,), "<u8", padded, strides=(1,))
    words = at_byte[at + np.repeat(starts, counts)]
    # The last word of a text has bytes of the next one, which do not count.
    excess = np.clip(at + _BYTES - np.repeat(lengths, counts), 0, _BYTES - 1).astype(np.uint64) * np.uint64(8)
    words <<= excess
    return _mixed(_sums(words, counts), lengths)


def _ends(offsets: pa.Buffer, column: Any) -> npt.NDArray[np.int64]:  # noqa: ANN401 - Arrow's array types
    end = column.offset + len(column) + 1
    return np.frombuffer(offsets, np.int32, end)[column.offset :].astype(np.int64)


def _places(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the index of each item in its group, of groups end to end."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts))


def _sums(words: _Words, counts: npt.NDArray[np.int64]) -> _Words:
    """Return the sum of each group's words, mixed with their index in it, and of its number of words."""
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(words, _places(counts)), dtype=np.uint64)])
    ends = np.cumsum(counts)
    return np.asarray(total[ends] - total[ends - counts] + counts.astype(np.uint64))
