"""A digest of rows that does not depend on file format, compression or batch sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import Column

_BYTES = 16


class RowDigest:
    """An incremental digest of table rows: equal rows in equal order have an equal digest.

    For each column it hashes the null mask, the values in a fixed width (null as zero, all NaNs equal), and for text
    the lengths and the bytes. Each part has its own hash, so that the bounds of batches do not matter.

    Attributes:
        rows: number of hashed rows.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.rows = 0
        self._columns = tuple(columns)
        self._encode_parts = [[blake2b(digest_size=_BYTES) for _ in range(3)] for _ in columns]

    def update(self, rows: pa.Table) -> None:
        """Add rows, which must have the columns under their names."""
        for column, hashers in zip(self._columns, self._encode_parts, strict=True):
            for chunk in rows[column.name].cast(arrow_type(column.dtype)).chunks:
                for hasher, part in zip(hashers, _encode_parts(chunk), strict=False):
                    hasher.update(part)
        self.rows += rows.num_rows

    def copy(self) -> RowDigest:
        """Return an independent copy."""
        other = RowDigest(self._columns)
        other.rows = self.rows
        other._encode_parts = [[hasher.copy() for hasher in hashers] for hashers in self._encode_parts]
        return other

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        total = blake2b(self.rows.to_bytes(8, "little"), digest_size=_BYTES)
        for column, hashers in zip(self._columns, self._encode_parts, strict=True):
            total.update(f"{len(column.name)} {column.name} {column.dtype} ".encode())
            for hasher in hashers:
                total.update(hasher.digest())
        return total.hexdigest()


def digest_rows(columns: Sequence[Column], rows: pa.Table) -> str:
    """Return the digest of a table.

    >>> from skewless.contract.dtypes import DType
    >>> columns = [Column(name="x", dtype=DType.FLOAT64), Column(name="s", dtype=DType.STRING)]
    >>> one = pa.table({"x": [1.0, None], "s": ["a", ""]})
    >>> digest_rows(columns, one) == digest_rows(columns, pa.concat_tables([one.slice(0, 1), one.slice(1)]))
    True
    >>> digest_rows(columns, one) == digest_rows(columns, pa.table({"x": [1.0, 0.0], "s": ["a", ""]}))
    False
    """
    digest = RowDigest(columns)
    digest.update(rows)
    return digest.hexdigest()


def _encode_parts(array: pa.Array) -> Iterator[bytes | memoryview]:
    yield np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=np.uint8).tobytes()
    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        yield from _encode_text(array)
        return
    values = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        # NaNs may have different bits, but are one value.
        numbers = np.where(np.isnan(numbers), np.asarray(np.nan, numbers.dtype), numbers)
    yield numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


def _encode_text(array: pa.Array) -> Iterator[bytes | memoryview]:
    is_text = pa.types.is_string(array.type)
    filled = array.fill_null("" if is_text else b"")
    total = (filled.cast(pa.large_string()) if is_text else filled).cast(pa.large_binary())
    yield pc.binary_length(total).to_numpy().astype("<i8").tobytes()
    _, bounds, data = total.buffers()
    if data is not None:
        # Only the bytes of this slice: the buffer may be shared with others.
        ends = np.frombuffer(bounds, dtype="<i8")[total.offset : total.offset + len(total) + 1]
        yield memoryview(data)[int(ends[0]) : int(ends[-1])]
