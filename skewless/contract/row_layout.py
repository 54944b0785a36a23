"""Where the columns of packed rows lie, and how rows, laid one below the other, are read at once."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
Cell: TypeAlias = bytes | int
"""A value as it lies in a row: integers and times as a number, text and others as bytes; anything where null."""

_HEAD = [
    *((name, ">u8") for name in ("event", "created", "partition", "seq")),
    *(("view", "<u8"), ("sum", "<u4"), ("run", ">i4"), ("format", "u1"), ("flags", "u1")),
]
_INTEGERS = {DType.INT64: "q", DType.TIMESTAMP: "q", DType.INT32: "i"}
_NUMBERS = {**_INTEGERS, DType.FLOAT64: "d", DType.FLOAT32: "f", DType.BOOL: "?"}
_CELLS = {**_INTEGERS, DType.FLOAT64: "8s", DType.FLOAT32: "4s", DType.BOOL: "s", DType.STRING: "I", DType.BYTES: "I"}
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Neighbouring numbers of a row, read as one type, and the columns of the block that they become.

    Args:
        name: of the field of a record that holds them.
        offset: of their first byte in a row.
        where: which of them have that type.
    """

    name: str
    offset: int
    dtype: str
    columns: slice
    where: BoolArray | bool = True


class RowLayout:
    """The layout of the rows of one view; ``skewless.contract.rows`` draws it.

    Args:
        features: the view's, in the plan's order.

    Attributes:
        dtype: numpy's type of a row without its heap.
        record: the same to read by: neighbouring numbers of one type are one field, too.
        size: of a row without its heap, in bytes.
        places: the place of each feature.
        text: the places of the text features.
    """

    def __init__(self, features: Sequence[Column]) -> None:
        self._features = features
        bitmap = [("nulls", "u1", ((len(features) + 7) // 8,))] if features else []
        columns = [(f"f{i}", "<u4" if c.dtype.is_text else c.dtype.numpy) for i, c in enumerate(features)]
        self.dtype = np.dtype([*_HEAD, *bitmap, *columns])
        self.size = self.dtype.itemsize
        self.places = {column.name: i for i, column in enumerate(features)}
        self.text = [i for i, column in enumerate(features) if column.dtype.is_text]
        self._last_end = self.bytes_of(f"f{self.text[-1]}") if self.text else range(0)
        self._narrow = any(column.dtype is DType.FLOAT32 for column in features)
        self._stretches = self._stretched()
        self.record = self._record()
        cells = "<" + "".join(_CELLS[column.dtype] for column in features)
        self._cells = struct.Struct(f"<{self.size - struct.calcsize(cells)}x{cells[1:]}").unpack_from

    @property
    def width(self) -> int:
        """Return the number of features."""
        return len(self._features)

    @property
    def number_code(self) -> str:
        """Return how ``struct`` reads a row without text: event, view's hash, format, flags, null bits, features."""
        columns = "".join(_NUMBERS[column.dtype] for column in self._features)
        return f"8s24x8s8xBB{len(self.bytes_of('nulls'))}s{columns}"

    def bytes_of(self, name: str) -> range:
        """Return where the bytes of a field lie in a row; there is no null bitmap without features."""
        fields: Mapping[str, Any] = self.dtype.fields or {}
        if name not in fields:
            return range(0)
        dtype, start = fields[name][:2]
        return range(start, start + dtype.itemsize)

    def length(self, row: bytes) -> int:
        """Return how long a row should be: as long as what it says of its texts."""
        end = self._last_end
        return self.size + int.from_bytes(row[end.start : end.stop], "little")

    def is_readable(self, row: bytes) -> bool:
        """Say whether the texts of a row of the right length lie one after the other, and are text."""
        ends = [0, *(self._cells(row)[place] for place in self.text)]
        if ends != sorted(ends):
            return False
        try:
            for column, cell in zip(self._features, self.cells(row), strict=True):
                if column.dtype is DType.STRING:
                    bytes(cell).decode()
        except UnicodeDecodeError:
            return False
        return True

    def cells(self, row: bytes) -> Sequence[Cell]:
        """Return the value of each feature of a sound row."""
        cells = self._cells(row)
        if not self.text:
            return cells
        with_text = list(cells)
        start = self.size
        for place in self.text:
            end = self.size + cells[place]
            with_text[place] = row[start:end]
            start = end
        return with_text

    def records(self, rows: Sequence[bytes]) -> Records:
        """Return sound rows as records."""
        heads = [row[: self.size] for row in rows] if self.text else rows
        return np.frombuffer(b"".join(heads), self.record)

    @staticmethod
    def moments(stored: npt.NDArray[Any]) -> Int64Array:
        """Return times, as they lie in rows, in microseconds."""
        return (stored.astype(np.uint64) ^ _SIGN).view(np.int64)

    @staticmethod
    def column(records: Records, place: int) -> npt.NDArray[Any]:
        """Return the values of a feature; of text, the ends in the heap."""
        return np.ascontiguousarray(records[f"f{place}"])

    def texts(self, records: Records, rows: Sequence[bytes], place: int) -> list[bytes]:
        """Return the values of a text feature, from the heaps of the rows."""
        before = self.text.index(place) - 1
        ends = self.column(records, place).tolist()
        starts = self.column(records, self.text[before]).tolist() if before >= 0 else [0] * len(rows)
        return [row[self.size + start : self.size + end] for row, start, end in zip(rows, starts, ends, strict=True)]

    def nulls(self, records: Records) -> BoolArray:
        """Return the null bits, shape ``(n, n_features)``."""
        if not self.width:
            return np.zeros((len(records), 0), dtype=np.bool_)
        return np.unpackbits(records["nulls"], axis=1, count=self.width, bitorder="little").view(np.bool_)

    def fill(self, block: npt.NDArray[np.float64], records: Records) -> None:
        """Write the features into columns, whatever is null; those of text stay as they are."""
        with self._quiet:
            for stretch in self._stretches:
                np.copyto(block[:, stretch.columns], records[stretch.name], where=stretch.where)

    @property
    def _quiet(self) -> AbstractContextManager[object]:
        """Numpy warns of a signalling NaN that is widened to a quiet one."""
        return np.errstate(invalid="ignore") if self._narrow else nullcontext()

    def _stretched(self) -> list[_Stretch]:
        dtypes = ["" if i in self.text else self.dtype[f"f{i}"].str for i in range(self.width)]
        where: dict[str, BoolArray] = {}
        if not self.text and len({self.dtype[f"f{i}"].itemsize for i in range(self.width)}) == 1:
            # All columns are read as their most frequent type, then those of others again: fewer steps than runs.
            first, *others = sorted(set(dtypes), key=dtypes.count, reverse=True)
            where = {dtype: np.array([one == dtype for one in dtypes]) for dtype in others}
            runs = [(dtype, list(range(self.width))) for dtype in (first, *others)]
        else:
            runs = [(dtype, list(group)) for dtype, group in groupby(range(self.width), key=dtypes.__getitem__)]
        return [
            _Stretch(
                name=f"n{i}",
                offset=self.bytes_of(f"f{places[0]}").start,
                dtype=dtype,
                columns=slice(places[0], places[-1] + 1),
                where=where.get(dtype, True),
            )
            for i, (dtype, places) in enumerate(runs)
            if dtype
        ]

    def _record(self) -> np.dtype[np.void]:
        fields: Mapping[str, Any] = self.dtype.fields or {}
        wide = [
            (each.name, (each.dtype, each.columns.stop - each.columns.start), each.offset) for each in self._stretches
        ]
        names, formats, offsets = zip(*((name, *fields[name][:2]) for name in fields), *wide, strict=True)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size})
