"""Where the columns of packed rows lie, and how rows of equal length, laid one below the other, are read at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.status import BoolArray, Int64Array

Bytes = npt.NDArray[np.uint8]

_HEAD = np.dtype(
    [
        *((name, ">u8") for name in ("event", "created", "partition", "seq")),
        *(("view", "<u8"), ("sum", "<u4"), ("run", ">i4"), ("format", "u1"), ("flags", "u1")),
    ]
)
_SIGN = np.uint64(1 << 63)
_MOMENTS = ("event", "created")


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Some bytes of each row, seen as numbers of one type, which become some columns of the block.

    Args:
        where: which of the numbers are that.
    """

    start: int
    stop: int
    dtype: str
    columns: slice
    where: BoolArray | bool = True


class RowLayout:
    """The layout of the rows of one view; ``skewless.contract.rows`` draws it.

    Args:
        features: the view's, in the plan's order.
    """

    def __init__(self, features: Sequence[Column]) -> None:
        self._features = features
        bitmap = [("nulls", "u1", ((len(features) + 7) // 8,))] if features else []
        columns = [(f"f{i}", "<u4" if c.dtype.is_text else c.dtype.numpy) for i, c in enumerate(features)]
        self.dtype = np.dtype([*_HEAD.descr, *bitmap, *columns])
        self.size = self.dtype.itemsize
        self._start = {name: int(where[1]) for name, where in (self.dtype.fields or {}).items()}

    @cached_property
    def text(self) -> list[int]:
        """Return the places of the text features."""
        return [i for i, column in enumerate(self._features) if column.dtype.is_text]

    @cached_property
    def places(self) -> dict[str, int]:
        """Return the place of each feature."""
        return {column.name: i for i, column in enumerate(self._features)}

    @cached_property
    def cells(self) -> list[slice]:
        """Return which bytes of a row each feature takes; of text, the end in the heap."""
        found = [self.bytes_of(f"f{i}") for i in range(len(self._features))]
        return [slice(each.start, each.stop) for each in found]

    def length(self, row: bytes) -> int:
        """Return how long a row should be: as long as what it says of its texts."""
        text = self.text
        return self.size + int.from_bytes(row[self.cells[text[-1]]], "little") if text else self.size

    def is_readable(self, row: bytes) -> bool:
        """Say whether the texts of a row of the right length lie one after the other, and are text."""
        ends = [0, *(int.from_bytes(row[self.cells[place]], "little") for place in self.text)]
        if ends != sorted(ends):
            return False
        try:
            for place, start, end in zip(self.text, ends, ends[1:], strict=False):
                if self._features[place].dtype is DType.STRING:
                    row[self.size + start : self.size + end].decode()
        except UnicodeDecodeError:
            return False
        return True

    def laid_out(self, rows: Sequence[bytes]) -> Bytes:
        """Return the bytes of sound rows without their heaps, shape ``(n, size)``."""
        heads = [row[: self.size] for row in rows] if self.text else rows
        return np.frombuffer(b"".join(heads), dtype=np.uint8).reshape(len(rows), self.size)

    def head(self, raw: Bytes, name: str) -> npt.NDArray[Any]:
        """Return a field of the rows' heads, as it lies there; ``raw`` has shape ``(n, size)``."""
        dtype: np.dtype[Any] = _HEAD[name]
        start = self._start[name]
        return raw[:, start] if dtype.itemsize == 1 else raw[:, start : start + dtype.itemsize].view(dtype)[:, 0]

    def origin(self, raw: Bytes, name: str) -> Int64Array:
        """Return a time, the log position or the run of each row."""
        field = self.head(raw, name)
        return self.moments(field) if name in _MOMENTS else field.astype(np.int64)

    @staticmethod
    def moments(stored: npt.NDArray[Any]) -> Int64Array:
        """Return times, as they lie in a row, in microseconds."""
        return (stored.astype(np.uint64) ^ _SIGN).view(np.int64)

    def bytes_of(self, name: str) -> range:
        """Return where the bytes of a field lie in a row; there is no null bitmap without features."""
        if name not in self._start:
            return range(0)
        return range(self._start[name], self._start[name] + self.dtype[name].itemsize)

    def column(self, raw: Bytes, place: int) -> npt.NDArray[Any]:
        """Return the values of a feature; of text, the ends in the heap."""
        name = f"f{place}"
        start, dtype = self._start[name], self.dtype[name]
        return np.ascontiguousarray(raw[:, start : start + dtype.itemsize]).view(dtype)[:, 0]

    def texts(self, raw: Bytes, rows: Sequence[bytes], place: int) -> list[bytes]:
        """Return the values of a text feature, from the heaps of the rows."""
        before = self.text.index(place) - 1
        ends = self.column(raw, place).tolist()
        starts = self.column(raw, self.text[before]).tolist() if before >= 0 else [0] * len(rows)
        return [row[self.size + start : self.size + end] for row, start, end in zip(rows, starts, ends, strict=True)]

    def nulls(self, raw: Bytes) -> BoolArray:
        """Return the null bits, shape ``(n, n_features)``."""
        count = len(self._features)
        if not count:
            return np.zeros((len(raw), 0), dtype=np.bool_)
        start = self._start["nulls"]
        packed = raw[:, start : start + (count + 7) // 8]
        return np.unpackbits(packed, axis=1, count=count, bitorder="little").view(np.bool_)

    def numbers(self, raw: Bytes, nulls: BoolArray) -> npt.NDArray[np.float64]:
        """Return the features as float64, NaN for null, shape ``(n, n_features)``; columns of text hold anything."""
        block = np.empty((len(raw), len(self._features)), dtype=np.float64)
        self.fill(block, raw)
        block[nulls] = np.nan
        return block

    def fill(self, block: npt.NDArray[np.float64], raw: Bytes) -> None:
        """Write the features into columns, whatever is null."""
        with self._quiet:
            for piece in self._stretches:
                numbers = raw[:, piece.start : piece.stop].view(piece.dtype)
                np.copyto(block[:, piece.columns], numbers, where=piece.where)

    @property
    def width(self) -> int:
        """Return the number of features."""
        return len(self._features)

    @property
    def dtypes(self) -> list[DType]:
        """Return the types of the features."""
        return [column.dtype for column in self._features]

    @property
    def _quiet(self) -> AbstractContextManager[object]:
        """Numpy warns of a signalling NaN that is widened to a quiet one."""
        return np.errstate(invalid="ignore") if self._narrow else nullcontext()

    @cached_property
    def _narrow(self) -> bool:
        return any(column.dtype is DType.FLOAT32 for column in self._features)

    @cached_property
    def _stretches(self) -> list[_Stretch]:
        dtypes = [self.dtype[f"f{i}"].str for i in range(len(self._features))]
        if len({np.dtype(dtype).itemsize for dtype in dtypes}) == 1 and not self.text:
            return self._of_one_width(dtypes)
        stretches = []
        for dtype, group in groupby(range(len(dtypes)), key=lambda i: "" if i in self.text else dtypes[i]):
            places = list(group)
            if dtype:
                start = self._start[f"f{places[0]}"]
                stop = start + len(places) * np.dtype(dtype).itemsize
                columns = slice(places[0], places[-1] + 1)
                stretches.append(_Stretch(start=start, stop=stop, dtype=dtype, columns=columns))
        return stretches

    def _of_one_width(self, dtypes: Sequence[str]) -> list[_Stretch]:
        """All columns are read as their most frequent type, then those of others again: fewer steps than runs."""
        start = self._start["f0"]
        first, *others = sorted(set(dtypes), key=dtypes.count, reverse=True)
        everywhere: dict[str, Any] = {"start": start, "stop": self.size, "columns": slice(None)}
        which = {dtype: np.array([one == dtype for one in dtypes]) for dtype in others}
        return [
            _Stretch(dtype=first, **everywhere),
            *(_Stretch(dtype=dtype, where=where, **everywhere) for dtype, where in which.items()),
        ]
