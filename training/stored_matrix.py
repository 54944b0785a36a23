"""A matrix of features in the storage, larger than memory: read from the files of a dataset, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import filled_numbers, find_nulls, int64_array
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.models.runtimes.port import Matrix, Scores, Vector
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject

# Of the numbers of one block, the unit of all reads; a few blocks are in memory at once.
BLOCK_BYTES = 16_000_000
_LEAST_ROWS = 1_024
_MOST_ROWS = 65_536
_COLUMN_ROWS = 1_000_000  # of one column, at once


def count_block_rows(columns: int) -> int:
    """Return how many rows a block has, which is also the row group of a file.

    >>> count_block_rows(20), count_block_rows(1_000)
    (65536, 2000)
    """
    return min(_MOST_ROWS, max(_LEAST_ROWS, BLOCK_BYTES // (8 * max(1, columns))))


@dataclass(frozen=True, kw_only=True)
class MatrixFiles:
    """The files of a dataset.

    Args:
        objects: Parquet files, in the order of their rows.
        rows: number of rows of each file.
        block_rows: rows of each row group; the last of a file has fewer.
        scratch: folder for temporary files of the training.
    """

    storage: ObjectStorage
    scratch: Path
    objects: tuple[StoredObject, ...]
    rows: tuple[int, ...]
    block_rows: int

    def find_blocks(self) -> list[tuple[int, int, int]]:
        """Return per block its file, its row group, and its number of rows."""
        size = self.block_rows
        return [
            (file, first // size, min(size, rows - first))
            for file, rows in enumerate(self.rows)
            for first in range(0, rows, size)
        ]

    def read(self, file: int, row_group: int | None, columns: Sequence[str]) -> pa.Table:
        """Return columns of a row group, or of a file.

        Raises:
            StoreError: the file is missing, or was altered.
        """
        # The path of each read: a local copy of an object may be deleted between two reads.
        with pq.ParquetFile(self.storage.local_path(self.objects[file])) as parquet:
            if row_group is None:
                return parquet.read(list(columns))
            return parquet.read_row_group(row_group, list(columns))


class StoredMatrix:
    """A float64 matrix ``(n, n_features)``, NaN is missing: the bits of ``Assembler``.

    Not for several threads at once.

    Args:
        files: have a column per feature.
        names: features in the order of the columns.
        codes: per text feature, the number of each word; other words are NaN.
        rows: rows of the files, in the order of the matrix; None: all.
    """

    def __init__(
        self,
        files: MatrixFiles,
        names: tuple[str, ...],
        codes: Mapping[str, Mapping[Any, float]],
        rows: Int64Array | None = None,
    ) -> None:
        self.names = names
        self._files, self._codes, self._rows = files, codes, rows
        self._blocks = files.find_blocks()
        self._starts = np.cumsum([0, *(rows for _, _, rows in self._blocks)])
        self._last: tuple[int, Matrix] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and of columns."""
        return (int(self._starts[-1]) if self._rows is None else len(self._rows)), len(self.names)

    @property
    def batch_rows(self) -> int:
        """Return a number of rows that fit in memory many times."""
        return self._files.block_rows

    @property
    def scratch(self) -> Path:
        """Return the folder for temporary files of the training."""
        return self._files.scratch

    def select(self, rows: BoolArray | Int64Array) -> StoredMatrix:
        """Return the rows of a mask, or with numbers, in their order; nothing is read."""
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        own = numbers if self._rows is None else self._rows[numbers]
        return StoredMatrix(self._files, self.names, self._codes, own.astype(np.int64))

    def read(self, first: int, count: int) -> Matrix:
        """Return some rows, C-contiguous.

        Raises:
            StoreError: a file is missing, or was altered.
        """
        numbers = self._numbers(first, count)
        matrix = np.empty((len(numbers), len(self.names)))
        for block, places in _group_by_part(self._starts, numbers):
            matrix[places] = self._read_block(block)[numbers[places] - self._starts[block]]
        return matrix

    def batches(self, rows: int | None = None) -> Iterator[Matrix]:
        """Yield all rows in order, ``rows`` at a time (by default as many as a block has)."""
        size = rows or self.batch_rows
        for first in range(0, self.shape[0], size):
            yield self.read(first, size)

    def read_column(self, index: int) -> Vector:
        """Return a column, shape ``(n,)``."""
        column, name = np.empty(self.shape[0]), self.names[index]
        for places, values in self._read_values(name):
            column[places] = _to_numbers(values, self._codes.get(name))
        return column

    def read_words(self, name: str) -> set[Any]:
        """Return the distinct words of a text feature, without null."""
        words: set[Any] = set()
        for _, values in self._read_values(name):
            words.update(values.unique().to_pylist())
        return words - {None}

    def _read_values(self, name: str) -> Iterator[tuple[Int64Array, pa.ChunkedArray]]:
        """Yield the values of a feature as they are stored, with their places in the matrix."""
        starts = np.cumsum([0, *self._files.rows])
        for first in range(0, self.shape[0], _COLUMN_ROWS):
            numbers = self._numbers(first, _COLUMN_ROWS)
            for file, places in _group_by_part(starts, numbers):
                column = self._files.read(file, None, [name])[name]
                yield first + places, column.take(int64_array(numbers[places] - starts[file]))

    def _numbers(self, first: int, count: int) -> Int64Array:
        """Return the numbers of some rows of the matrix in the files."""
        end = min(first + count, self.shape[0])
        return np.arange(first, end) if self._rows is None else self._rows[first:end]

    def _read_block(self, block: int) -> Matrix:
        # The next batch usually begins in the block in which the previous one ended.
        if self._last is None or self._last[0] != block:
            file, group, rows = self._blocks[block]
            table, matrix = self._files.read(file, group, self.names), np.empty((rows, len(self.names)))
            for index, name in enumerate(self.names):
                matrix[:, index] = _to_numbers(table[name], self._codes.get(name))
            self._last = (block, matrix)
        return self._last[1]


AnyMatrix = Matrix | StoredMatrix


def select_rows(matrix: AnyMatrix, rows: BoolArray | Int64Array) -> AnyMatrix:
    """Return the rows of a mask, or with numbers, in their order; in memory C-contiguous."""
    if isinstance(matrix, StoredMatrix):
        return matrix.select(rows)
    return np.ascontiguousarray(matrix[rows])


def read_batches(matrix: AnyMatrix) -> Iterator[Matrix]:
    """Yield the rows of a matrix in order; a matrix in memory is one batch."""
    if isinstance(matrix, StoredMatrix):
        yield from matrix.batches()
    else:
        yield matrix


def score_rows(score: Callable[[Matrix], Scores], matrix: AnyMatrix) -> Scores:
    """Return the scores of all rows, a batch at a time; each row has the same score in any batch."""
    parts = [score(np.ascontiguousarray(batch)) for batch in read_batches(matrix)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _group_by_part(starts: Int64Array, numbers: Int64Array) -> Iterator[tuple[int, Int64Array]]:
    """Yield each part that some rows are in, with the places of its rows among them.

    Args:
        starts: number of the first row of each part, and the end of the last.
    """
    parts = np.searchsorted(starts, numbers, side="right") - 1
    order = np.argsort(parts, kind="stable")
    distinct, first = np.unique(parts[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(order, first[1:]), strict=False)


def _to_numbers(column: pa.ChunkedArray, codes: Mapping[Any, float] | None) -> Vector:
    """Return a column as ``Assembler`` does: float64, NaN for null and for unknown words."""
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if codes is not None:
        encoded = column.combine_chunks().dictionary_encode()
        numbers = np.array([*(codes.get(word, np.nan) for word in encoded.dictionary.to_pylist()), np.nan])
        return np.asarray(numbers[filled_numbers(encoded.indices, len(numbers) - 1)], np.float64)
    nulls = find_nulls(column)
    plain = column if pa.types.is_floating(column.type) else column.cast(_integer_type(column.type))
    with np.errstate(invalid="ignore"):  # a signalling NaN is widened to a quiet one
        values = filled_numbers(plain, 0).astype(np.float64)
    values[nulls] = np.nan
    return values


def _integer_type(kind: pa.DataType) -> pa.DataType:
    return pa.uint8() if pa.types.is_boolean(kind) else kind if pa.types.is_integer(kind) else pa.int64()
