"""Packed rows: one binary string per (view, entity), whose first 32 bytes are its rank.

Layout::

    0   rank: event_ts, created_ts (null: int64 minimum), partition hash, seq   4 x 8 bytes
    32  first 8 bytes of the view's hash
    40  checksum, little-endian, run id, big-endian   2 x 4 bytes
    48  format version, flags (bit 0: tombstone)      2 x 1 byte
    50  null bitmap, then the columns in the plan's order, little-endian, no padding;
        text columns hold the end of their value in the heap (uint32)
    ..  heap: the text values, one after the other

The two times carry a flipped sign bit and all four are big-endian: ranks compare as plain bytes
in Python and as unsigned words in Lua (SEMANTICS 2.1, 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import binary_scalar
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.names import partition_hash
from skewless.contract.plan import View
from skewless.contract.row_layout import Records, RowLayout, compute_checksums, is_intact
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.view import WindowView

FORMAT = 1
RANK_BYTES = 32
NO_TIME = -(2**63)
TOMBSTONE = 1
_ABSENT = 2  # flag of the blank row, which is never stored
_OWNER, _FORMAT_BYTE, _FORMAT = slice(32, 40), slice(48, 49), bytes([FORMAT])
_FIELDS = {"event_ts": "event", "created_ts": "created", "seq": "seq", "run_id": "run", "tombstone": "flags"}
_TIMES = ("event_ts", "created_ts")

_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The origins of rows, one entry per row.

    Args:
        event_ts: event time, microseconds, UTC.
        created_ts: microseconds, UTC; ``NO_TIME`` if there is none.
        seq: position in the log partition.
        run_id: the run that accepted the row.
        tombstone: whether the row marks a deletion.
    """

    event_ts: Int64Array
    created_ts: Int64Array
    seq: Int64Array
    run_id: Int64Array
    tombstone: BoolArray

    @classmethod
    def empty(cls, n: int) -> Versions:
        """Return n entries for entities without a row."""
        no_time = np.full(n, NO_TIME, dtype=np.int64)
        return cls(
            event_ts=no_time,
            created_ts=no_time,
            seq=np.full(n, -1, dtype=np.int64),
            run_id=np.full(n, -1, dtype=np.int64),
            tombstone=np.zeros(n, dtype=np.bool_),
        )

    @staticmethod
    def concatenate(parts: Sequence[Versions]) -> Versions:
        """Return the entries of all parts, concatenated."""
        if set(map(type, parts)) == {PackedVersions}:
            return PackedVersions.concatenate(parts)
        names = [field.name for field in fields(Versions)]
        return Versions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, kw_only=True)
class ViewRead:
    """The rows of one view for n entities; the same shape from the online store and from the log.

    Args:
        has_row: whether there is a row that is not a tombstone.
        available: whether the store replied at all.
        versions: the origin of each row; meaningless without a row.
        values: per feature, an array of the feature's numpy type, shape ``(n,)``.
        nulls: per feature, whether the value is null; true without a row.
        mask: all nulls as one array, shape ``(n, n_features)``; None: not computed.
        block: all numbers as one array, float64, shape ``(n, n_features)``, NaN for null; the columns of text are
            undefined. None: not computed.
        unavailable: entities whose row could not be read; None: none.
    """

    has_row: BoolArray
    available: bool
    versions: Versions
    values: Mapping[str, npt.NDArray[Any]]
    nulls: Mapping[str, BoolArray]
    mask: BoolArray | None = None
    block: npt.NDArray[np.float64] | None = None
    unavailable: BoolArray | None = None


def blank_values(features: Sequence[Column], n: int) -> dict[str, npt.NDArray[Any]]:
    """Return zeros (None for text) of each feature's type, shape ``(n,)``."""
    return {
        column.name: np.full(n, None, dtype=object) if column.dtype.is_text else np.zeros(n, dtype=column.dtype.numpy)
        for column in features
    }


class RowCodec:
    """Packs and unpacks the rows of one view, many at a time.

    Args:
        view: the view of the rows.
        partition: log partition of the rows; None: the partition of the view's batch rows.
    """

    def __init__(self, view: View, partition: str | None = None) -> None:
        self._view = view
        self._features = view.features
        self.layout = RowLayout(view.features)
        self._hash = np.uint64(int.from_bytes(bytes.fromhex(view.hash)[:8], "little"))
        self._hash_bytes = bytes.fromhex(view.hash)[:8]
        self._partition = partition_hash(partition or view.partition)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Return the numpy type of a row without its heap."""
        return self.layout.dtype

    def encode(
        self, versions: Versions, values: Mapping[str, npt.NDArray[Any]], nulls: Mapping[str, BoolArray]
    ) -> list[bytes]:
        """Return one packed row per entry of the parallel columns."""
        rows: list[bytes] = self.pack(versions, values, nulls).to_pylist()
        return rows

    def pack(
        self, versions: Versions, values: Mapping[str, npt.NDArray[Any] | pa.Array], nulls: Mapping[str, BoolArray]
    ) -> pa.LargeBinaryArray:
        """Return one packed row per entry of the parallel columns; text may be an Arrow array."""
        n = len(versions.seq)
        fixed = np.zeros(n, dtype=self.dtype)
        # Flipping the sign bit makes signed times sort correctly as unsigned big-endian bytes.
        fixed["event"] = versions.event_ts.view(np.uint64) ^ _SIGN
        fixed["created"] = versions.created_ts.view(np.uint64) ^ _SIGN
        fixed["partition"] = self._partition
        fixed["seq"] = versions.seq
        fixed["view"] = self._hash
        fixed["run"] = versions.run_id
        fixed["format"] = FORMAT
        fixed["flags"] = versions.tombstone
        if self._features and n:
            bits = np.stack([nulls[column.name] for column in self._features], axis=1)
            fixed["nulls"] = np.packbits(bits, axis=1, bitorder="little")
        import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

        texts: list[pa.Array] = []
        ends = np.zeros(n, dtype=np.int64)
        for i, column in enumerate(self._features):
            if column.dtype.is_text:
                text = _binary(values[column.name], nulls[column.name])
                ends += pc.binary_length(text).to_numpy()
                fixed[f"f{i}"] = ends
                texts.append(text)
            else:
                # 0 for null, so that rows with equal values have equal bytes.
                fixed[f"f{i}"] = np.where(nulls[column.name], 0, values[column.name])
        if not texts or not n:
            fixed["sum"] = compute_checksums(fixed)
            return _as_binary(fixed)
        heaps = pc.binary_join_element_wise(*texts, binary_scalar(b""))
        _, offsets, data = heaps.buffers()
        ends = np.frombuffer(offsets, np.int64, n + 1)[1:]
        fixed["sum"] = compute_checksums(fixed, np.frombuffer(data or b"", np.uint8, ends[-1]), ends)
        return pc.binary_join_element_wise(_as_binary(fixed), heaps, binary_scalar(b""))

    def decode(self, rows: Sequence[bytes | None], *, numbers: bool = True) -> ViewRead:
        """Return the columns of packed rows; None is an entity without a row.

        A corrupt row makes its entity unavailable, as if the store had not replied for it.

        Args:
            numbers: compute the block of numbers, too.
        """
        intact = self.find_intact(rows)
        if not intact.all():
            readable = [row if ok else None for row, ok in zip(rows, intact.tolist(), strict=True)]
            return replace(self._read(readable, numbers=numbers), unavailable=~intact)
        return self._read(rows, numbers=numbers)

    def find_intact(self, rows: Sequence[bytes | None]) -> BoolArray:
        """Return which rows are intact: complete, of this view and of a known format; None counts as intact.

        A checksum detects any single changed bit.
        """
        stored = [row for row in rows if row is not None]
        # One division checks all rows; only after a failure each row is checked.
        if all(map(self._is_shaped, stored)) and is_intact(b"".join(stored)):
            return np.ones(len(rows), dtype=np.bool_)
        each = (row is None or (self._is_shaped(row) and is_intact(row)) for row in rows)
        return np.fromiter(each, dtype=np.bool_, count=len(rows))

    def _read(self, rows: Sequence[bytes | None], *, numbers: bool) -> ViewRead:
        layout, positions = self.layout, self.layout.positions
        blank = self.blank
        filled = [blank if row is None else row for row in rows]
        records = layout.records(filled)
        has_row = records["flags"] == 0
        nulls = layout.nulls(records)
        if not has_row.all():
            nulls |= ~has_row[:, None]
        block = None
        if numbers:
            block = np.empty(nulls.shape)
            layout.fill(block, records)
            block[nulls] = np.nan

        def value(name: str) -> npt.NDArray[Any]:
            position = positions[name]
            if not self._features[position].dtype.is_text:
                return layout.column(records, position)
            return _as_objects(
                layout.texts(records, filled, position), nulls[:, position], self._features[position].dtype
            )

        return ViewRead(
            has_row=has_row,
            available=True,
            versions=PackedVersions(records),
            values=_Columns(positions, value),
            nulls=_Columns(positions, lambda name: nulls[:, positions[name]]),
            mask=nulls,
            block=block,
        )

    def _is_shaped(self, row: bytes) -> bool:
        matches = row[_OWNER] == self._hash_bytes and row[_FORMAT_BYTE] == _FORMAT
        return matches and len(row) == self.layout.length(row)

    @cached_property
    def blank(self) -> bytes:
        """Return the packed row that replaces a missing row when rows are decoded: all null; never stored."""
        row = np.zeros(1, dtype=self.dtype)
        row["view"], row["format"], row["flags"] = self._hash, FORMAT, _ABSENT
        # Both read as -1, as in `Versions.empty`.
        row["seq"], row["run"] = 2**64 - 1, -1
        if self._features:
            row["nulls"] = 0xFF
        row["sum"] = compute_checksums(row)
        return row.tobytes()


class PackedVersions(Versions):
    """The versions of packed rows, decoded on access."""

    def __init__(self, records: Records) -> None:
        # Past the frozen dataclass, which allows no assignment; fields that are not set yet go to `__getattr__`.
        self.__dict__["_records"] = records

    @staticmethod
    def concatenate(parts: Sequence[Versions]) -> Versions:
        """Return the versions of several parts of one layout, concatenated; they stay packed."""
        records = [part.__dict__["_records"] for part in parts]
        return PackedVersions(np.frombuffer(b"".join([each.tobytes() for each in records]), records[0].dtype))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the fields of Versions
        field = self.__dict__["_records"][_FIELDS[name]]
        if name == "tombstone":
            column = (field & TOMBSTONE).astype(np.bool_)
        else:
            column = RowLayout.decode_times(field) if name in _TIMES else field.astype(np.int64)
        self.__dict__[name] = column  # stored: the next access does not call __getattr__
        return column


class _Columns(Mapping[str, npt.NDArray[Any]]):
    """The columns of decoded rows, extracted on first access."""

    def __init__(self, names: Mapping[str, int], extract: Callable[[str], npt.NDArray[Any]]) -> None:
        self._names, self._cut = names, cache(extract)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._cut(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def empty_read(view: View | WindowView, n: int, *, available: bool) -> ViewRead:
    """Return a read of n entities without rows; ``available=False``: the store did not reply."""
    return ViewRead(
        has_row=np.zeros(n, dtype=np.bool_),
        available=available,
        versions=Versions.empty(n),
        values=blank_values(view.features, n),
        nulls={column.name: np.ones(n, dtype=np.bool_) for column in view.features},
    )


def _binary(values: npt.NDArray[Any] | pa.Array, null: BoolArray) -> pa.Array:
    """Return text as its bytes, none where it is null."""
    import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

    array = values if isinstance(values, pa.Array) else pa.array(list(values), pa.large_binary(), mask=null)
    if array.null_count < int(null.sum()):
        array = pc.if_else(pa.array(null), None, array)
    return pc.fill_null(array.cast(pa.large_binary()), binary_scalar(b""))


def _as_binary(fixed: npt.NDArray[np.void]) -> pa.LargeBinaryArray:
    offsets = np.arange(len(fixed) + 1, dtype=np.int64) * fixed.dtype.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(fixed)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(fixed), buffers)


def _as_objects(texts: list[bytes], null: BoolArray, dtype: DType) -> npt.NDArray[Any]:
    objects = np.empty(len(texts), dtype=object)
    objects[:] = [text.decode() for text in texts] if dtype is DType.STRING else texts
    objects[null] = None
    return objects
