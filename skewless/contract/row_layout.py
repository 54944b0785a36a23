"""The layout of packed rows: positions of their columns, decoding of many rows at once, and their checksum.

The checksum is the ones' complement sum of 32-bit words (RFC 1071, with words twice as long). A row with its checksum,
read as a little-endian number, is a multiple of 2^32 - 1. So are several rows end to end: one division checks all of
them. The checksum detects any single changed bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.status import BoolArray, Int64Array

Records: TypeAlias = npt.NDArray[np.void]
"""Rows without their heaps, shape ``(n,)``, of the type ``RowLayout.record``."""

_HEAD = [
    *((name, ">u8") for name in ("event", "created", "partition", "seq")),
    *(("view", "<u8"), ("sum", "<u4"), ("run", ">i4"), ("format", "u1"), ("flags", "u1")),
]
_NUMBERS = {
    DType.INT64: "q",
    DType.TIMESTAMP: "q",
    DType.INT32: "i",
    DType.STRING: "I",
    DType.BYTES: "I",
    DType.FLOAT64: "d",
    DType.FLOAT32: "f",
    DType.BOOL: "?",
}
_SIGN = np.uint64(1 << 63)
MODULUS = 2**32 - 1
_WORD = 4
_FEW_BYTES = 512  # size up to which one division of a Python integer is faster than numpy


@dataclass(frozen=True, kw_only=True)
class _NumberRun:
    """Adjacent numbers of a row, read as one type, and their columns in the block of values.

    Args:
        name: the field of ``RowLayout.record`` with these numbers.
        offset: position of the first byte in a row.
        dtype: numpy's type code of the numbers.
        where: the numbers that have this type; the others are read again with theirs.
    """

    name: str
    offset: int
    dtype: str
    columns: slice
    where: BoolArray | bool = True


class RowLayout:
    """The layout of the rows of one view; ``skewless.contract.rows`` shows it.

    Args:
        features: features of the view, in the plan's order.

    Attributes:
        dtype: numpy type of a row without its heap.
        record: the same type for reading: adjacent numbers of one type are one more field.
        size: bytes of a row without its heap.
        positions: the position of each feature.
        text: the positions of the text features.
    """

    def __init__(self, features: Sequence[Column]) -> None:
        self._features = features
        bitmap = [("nulls", "u1", ((len(features) + 7) // 8,))] if features else []
        columns = [(f"f{i}", "<u4" if c.dtype.is_text else c.dtype.numpy) for i, c in enumerate(features)]
        self.dtype = np.dtype([*_HEAD, *bitmap, *columns])
        self.size = self.dtype.itemsize
        self.positions = {column.name: i for i, column in enumerate(features)}
        self.text = [i for i, column in enumerate(features) if column.dtype.is_text]
        self._last_end = self.bytes_of(f"f{self.text[-1]}") if self.text else range(0)
        self._narrow = any(column.dtype is DType.FLOAT32 for column in features)
        self._number_runs = self._find_number_runs()
        self.record = self._build_record()

    @property
    def width(self) -> int:
        """Return the number of features."""
        return len(self._features)

    @property
    def number_code(self) -> str:
        """Return the ``struct`` format of a row: event, hash, format, flags, null bits, features (of text, its end)."""
        columns = "".join(_NUMBERS[column.dtype] for column in self._features)
        return f"8s24x8s8xBB{len(self.bytes_of('nulls'))}s{columns}"

    def bytes_of(self, name: str) -> range:
        """Return the byte positions of a field in a row; empty for the null bitmap of a view without features."""
        fields: Mapping[str, Any] = self.dtype.fields or {}
        if name not in fields:
            return range(0)
        dtype, start = fields[name][:2]
        return range(start, start + dtype.itemsize)

    def length(self, row: bytes) -> int:
        """Return the correct length of a row: the end of its last text, or its fixed size."""
        end = self._last_end
        return self.size + int.from_bytes(row[end.start : end.stop], "little")

    def records(self, rows: Sequence[bytes]) -> Records:
        """Return intact rows as records."""
        fixed = [row[: self.size] for row in rows] if self.text else rows
        return np.frombuffer(b"".join(fixed), self.record)

    @staticmethod
    def decode_times(times: npt.NDArray[Any]) -> Int64Array:
        """Return stored times in microseconds."""
        return (times.astype(np.uint64) ^ _SIGN).view(np.int64)

    @staticmethod
    def column(records: Records, position: int) -> npt.NDArray[Any]:
        """Return the values of a feature; for text, the ends of the values in the heap."""
        return np.ascontiguousarray(records[f"f{position}"])

    def texts(self, records: Records, rows: Sequence[bytes], position: int) -> list[bytes]:
        """Return the values of a text feature, from the heaps of the rows."""
        before = self.text.index(position) - 1
        ends = self.column(records, position).tolist()
        starts = self.column(records, self.text[before]).tolist() if before >= 0 else [0] * len(rows)
        return [row[self.size + start : self.size + end] for row, start, end in zip(rows, starts, ends, strict=True)]

    def nulls(self, records: Records) -> BoolArray:
        """Return the null bits, shape ``(n, n_features)``."""
        if not self.width:
            return np.zeros((len(records), 0), dtype=np.bool_)
        return np.unpackbits(records["nulls"], axis=1, count=self.width, bitorder="little").view(np.bool_)

    def fill(self, block: npt.NDArray[np.float64], records: Records) -> None:
        """Write the features into the columns of a block, without regard to nulls; text columns are unchanged."""
        # Without numpy's warning about widening a signalling NaN to a quiet NaN.
        with np.errstate(invalid="ignore") if self._narrow else nullcontext():
            for run in self._number_runs:
                np.copyto(block[:, run.columns], records[run.name], where=run.where)

    def _find_number_runs(self) -> list[_NumberRun]:
        dtypes = ["" if i in self.text else self.dtype[f"f{i}"].str for i in range(self.width)]
        where: dict[str, BoolArray] = {}
        if not self.text and len({self.dtype[f"f{i}"].itemsize for i in range(self.width)}) == 1:
            # Read all columns as their most frequent type, then the columns of other types again: fewer numpy calls.
            first, *others = sorted(set(dtypes), key=dtypes.count, reverse=True)
            where = {dtype: np.array([each == dtype for each in dtypes]) for dtype in others}
            runs = [(dtype, list(range(self.width))) for dtype in (first, *others)]
        else:
            runs = [(dtype, list(group)) for dtype, group in groupby(range(self.width), key=dtypes.__getitem__)]
        return [
            _NumberRun(
                name=f"n{i}",
                offset=self.bytes_of(f"f{positions[0]}").start,
                dtype=dtype,
                columns=slice(positions[0], positions[-1] + 1),
                where=where.get(dtype, True),
            )
            for i, (dtype, positions) in enumerate(runs)
            if dtype
        ]

    def _build_record(self) -> np.dtype[np.void]:
        fields: Mapping[str, Any] = self.dtype.fields or {}
        wide = [
            (each.name, (each.dtype, each.columns.stop - each.columns.start), each.offset) for each in self._number_runs
        ]
        names, formats, offsets = zip(*((name, *fields[name][:2]) for name in fields), *wide, strict=True)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size})


def is_intact(data: bytes) -> bool:
    """Say whether the checksum of some bytes is right; they may be several rows end to end.

    >>> is_intact(bytes([1, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF])), is_intact(bytes([3, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF]))
    (True, False)
    """
    if len(data) <= _FEW_BYTES:
        return int.from_bytes(data, "little") % MODULUS == 0
    end = len(data) // _WORD * _WORD
    words = int(np.frombuffer(data, "<u4", end // _WORD).sum(dtype=np.uint64))
    return (words + int.from_bytes(data[end:], "little")) % MODULUS == 0


def compute_checksums(
    fixed: npt.NDArray[np.void], heaps: npt.NDArray[np.uint8] | None = None, ends: Int64Array | None = None
) -> npt.NDArray[np.uint32]:
    """Return the checksums of rows, uint32, never 0; their field must lie at a multiple of four bytes.

    Args:
        fixed: the rows without their heaps; the checksum field is 0.
        heaps: the text values that follow each row, of all rows end to end; None: there are none.
        ends: the end of each row's heap in ``heaps``, shape ``(n,)``.
    """
    n, size = len(fixed), fixed.dtype.itemsize
    raw = np.zeros((n, -(-size // _WORD) * _WORD), dtype=np.uint8)
    raw[:, :size] = fixed.view(np.uint8).reshape(n, size)
    sums = raw.view("<u4").sum(axis=1, dtype=np.uint64)
    if heaps is not None and ends is not None:
        sums += _sum_heaps(heaps, ends, size)
    checksums: npt.NDArray[np.uint32] = (MODULUS - sums % MODULUS).astype(np.uint32)
    return checksums


def _sum_heaps(heaps: npt.NDArray[np.uint8], ends: Int64Array, size: int) -> npt.NDArray[np.uint64]:
    """Return what each heap adds to the sum of its row, of which it begins at byte ``size``; shape ``(n,)``."""
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    # The place of each byte in its word: the last two bits of its place in the row, so 8 bits are enough.
    place = np.arange(len(heaps)).astype(np.uint8) + np.repeat((size - starts).astype(np.uint8), ends - starts)
    shifted = np.left_shift(heaps, (place & (_WORD - 1)) * np.uint8(8), dtype=np.uint64)
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(shifted)])
    return np.asarray(totals[ends] - totals[starts], np.uint64)
