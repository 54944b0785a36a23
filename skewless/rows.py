"""Packed rows: one binary string per (view, entity), whose first 32 bytes are its rank.

Layout::

    0   rank: event_ts, created_ts (null: int64 minimum), partition hash, seq   4 x 8 bytes
    32  first 8 bytes of the view's hash
    40  run id                                        int64, big-endian
    48  format version, flags (bit 0: tombstone)      2 x 1 byte
    50  null bitmap, then the columns in the plan's order, little-endian, no padding;
        text columns hold the end of their value in the heap (uint32)
    ..  heap: the text values, one after the other

The two times carry a flipped sign bit and all four are big-endian: ranks compare as plain bytes
in Python and as unsigned words in Lua (SEMANTICS 2.1, 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.binaries import constant
from skewless.columns import Column
from skewless.dtypes import DType
from skewless.errors import StoreError
from skewless.plan import View
from skewless.row_layout import Bytes, RowLayout
from skewless.status import BoolArray, Int64Array
from skewless.windows.view import WindowView

FORMAT = 1
RANK_BYTES = 32
NO_TIME = -(2**63)
TOMBSTONE = 1
_ABSENT = 2  # never stored
_FIELDS = {"event_ts": "event", "created_ts": "created", "seq": "seq", "run_id": "run"}

_SIGN = np.uint64(1 << 63)


def partition_hash(partition: str) -> int:
    """Return the 64-bit number that stands for a partition in a row's rank."""
    return int.from_bytes(blake2b(partition.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Where rows come from, one entry per row.

    Args:
        event_ts: microseconds, UTC.
        created_ts: microseconds, UTC; ``NO_TIME`` where there is none.
        seq: position in the log partition.
        run_id: the run that accepted the row.
        tombstone: whether the row says "deleted".
    """

    event_ts: Int64Array
    created_ts: Int64Array
    seq: Int64Array
    run_id: Int64Array
    tombstone: BoolArray

    @classmethod
    def empty(cls, n: int) -> Versions:
        """Return n entries for rows that were not found."""
        none = np.full(n, NO_TIME, dtype=np.int64)
        return cls(
            event_ts=none,
            created_ts=none,
            seq=np.full(n, -1, dtype=np.int64),
            run_id=np.full(n, -1, dtype=np.int64),
            tombstone=np.zeros(n, dtype=np.bool_),
        )

    @staticmethod
    def joined(parts: Sequence[Versions]) -> Versions:
        """Return the entries of all parts, one after the other."""
        if set(map(type, parts)) == {PackedVersions}:
            return PackedVersions.joined(parts)
        names = [field.name for field in fields(Versions)]
        return Versions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, kw_only=True)
class ViewRead:
    """What one view answered for n entities; the same shape from Redis and from the log.

    Args:
        found: whether there is a row that is not a tombstone.
        available: whether the store answered at all.
        versions: where each row comes from; meaningless where not found.
        values: per feature, an array of the feature's numpy type, shape ``(n,)``.
        nulls: per feature, where the value is null; true wherever nothing was found.
        mask: the nulls at once, where they are at hand: shape ``(n, n_features)``.
        block: the numbers at once, where they are at hand: float64, shape ``(n, n_features)``, NaN for
            null; the columns of text hold nothing.
        unanswered: where the store did not answer for single entities; None: nowhere.
    """

    found: BoolArray
    available: bool
    versions: Versions
    values: Mapping[str, npt.NDArray[Any]]
    nulls: Mapping[str, BoolArray]
    mask: BoolArray | None = None
    block: npt.NDArray[np.float64] | None = None
    unanswered: BoolArray | None = None


def blank_values(features: Sequence[Column], n: int) -> dict[str, npt.NDArray[Any]]:
    """Return zeros (None for text) of each feature's type, shape ``(n,)``."""
    return {
        column.name: np.full(n, None, dtype=object) if column.dtype.is_text else np.zeros(n, dtype=column.dtype.numpy)
        for column in features
    }


class RowCodec:
    """Packs and unpacks the rows of one view, many at a time.

    Args:
        view: whose rows.
        partition: the log partition that the rows stand in; by default that of the view's batch rows.
    """

    def __init__(self, view: View, partition: str | None = None) -> None:
        self._view = view
        self._features = view.features
        self.layout = RowLayout(view.features)
        self._hash = np.uint64(int.from_bytes(bytes.fromhex(view.hash)[:8], "little"))
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
        """Return one packed row per entry of the parallel columns; text may come as Arrow."""
        n = len(versions.seq)
        fixed = np.zeros(n, dtype=self.dtype)
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
        texts: list[pa.Array] = []
        ends = np.zeros(n, dtype=np.int64)
        for i, column in enumerate(self._features):
            if column.dtype.is_text:
                text = _binary(values[column.name], nulls[column.name])
                ends += pc.binary_length(text).to_numpy()
                fixed[f"f{i}"] = ends
                texts.append(text)
            else:
                fixed[f"f{i}"] = np.where(nulls[column.name], 0, values[column.name])
        rows = _as_binary(fixed)
        return pc.binary_join_element_wise(rows, *texts, constant(b"")) if texts else rows

    def decode(self, rows: Sequence[bytes | None], *, numbers: bool = True) -> ViewRead:
        """Return the columns of packed rows; None is an entity without a row.

        Args:
            numbers: give the block too.

        Raises:
            StoreError: a row is cut short, of another view or of an unknown format.
        """
        layout, places = self.layout, self.layout.places
        blank = self.blank
        filled = [blank if row is None else row for row in rows]
        raw = self._laid_out(filled)
        found = layout.head(raw, "flags") == 0
        nulls = layout.nulls(raw)
        if not found.all():
            nulls |= ~found[:, None]

        def value(name: str) -> npt.NDArray[Any]:
            place = places[name]
            if not self._features[place].dtype.is_text:
                return layout.column(raw, place)
            return _as_objects(layout.texts(raw, filled, place), nulls[:, place], self._features[place].dtype)

        return ViewRead(
            found=found,
            available=True,
            versions=PackedVersions(layout, raw),
            values=_Columns(places, value),
            nulls=_Columns(places, lambda name: nulls[:, places[name]]),
            mask=nulls,
            block=layout.numbers(raw, nulls) if numbers else None,
        )

    def _laid_out(self, rows: Sequence[bytes]) -> Bytes:
        """Return the bytes of the rows without their heaps, shape ``(n, size)``."""
        size, text = self.layout.size, self.layout.text
        heads = rows
        if text or set(map(len, rows)) - {size}:
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            # Before they are joined: a row of another length would move all that follow it.
            self._refuse(rows, lengths < size if text else lengths != size)
            heads = [row[:size] for row in rows]
        raw = np.frombuffer(b"".join(heads), dtype=np.uint8).reshape(len(rows), size)
        bad = (self.layout.head(raw, "view") != self._hash) | (self.layout.head(raw, "format") != FORMAT)
        if text:
            bad |= lengths != size + self.layout.column(raw, text[-1]).astype(np.int64)
        self._refuse(rows, bad)
        return raw

    def _refuse(self, rows: Sequence[bytes], bad: BoolArray) -> None:
        if bad.any():
            raise StoreError(
                f"view {self._view.name!r}",
                "holds a row that this plan did not write",
                value=rows[int(bad.argmax())][:64].hex(),
                fix="run `skewless materialize` after `skewless apply`, or point at the right Redis",
            )

    @cached_property
    def blank(self) -> bytes:
        """Return what stands for a row that is not there: all null, from nowhere; never stored."""
        row = np.zeros(1, dtype=self.dtype)
        row["view"], row["format"], row["flags"] = self._hash, FORMAT, _ABSENT
        row["seq"], row["run"] = 2**64 - 1, -1
        if self._features:
            row["nulls"] = 0xFF
        return row.tobytes()


class PackedVersions(Versions):
    """The versions of packed rows, cut out when they are asked for."""

    def __init__(self, layout: RowLayout, raw: Bytes) -> None:
        self.__dict__.update(_layout=layout, _raw=raw)

    @staticmethod
    def joined(parts: Sequence[Versions]) -> Versions:
        """Return rows of one layout, one after the other; they stay packed."""
        raw = np.concatenate([part.__dict__["_raw"] for part in parts])
        return PackedVersions(parts[0].__dict__["_layout"], raw)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the fields of Versions
        layout, raw = self.__dict__["_layout"], self.__dict__["_raw"]
        flags = name == "tombstone"
        made = (layout.head(raw, "flags") & TOMBSTONE).astype(np.bool_) if flags else layout.origin(raw, _FIELDS[name])
        self.__dict__[name] = made
        return made


class _Columns(Mapping[str, npt.NDArray[Any]]):
    """The columns of unpacked rows, cut out when they are asked for."""

    def __init__(self, names: Mapping[str, int], cut: Callable[[str], npt.NDArray[Any]]) -> None:
        self._names, self._cut = names, cut

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._cut(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def missing(view: View | WindowView, n: int, *, available: bool) -> ViewRead:
    """Return a read in which nothing was found, or in which the store did not answer."""
    return ViewRead(
        found=np.zeros(n, dtype=np.bool_),
        available=available,
        versions=Versions.empty(n),
        values=blank_values(view.features, n),
        nulls={column.name: np.ones(n, dtype=np.bool_) for column in view.features},
    )


def _binary(values: npt.NDArray[Any] | pa.Array, null: BoolArray) -> pa.Array:
    """Return text as its bytes, none where it is null."""
    array = values if isinstance(values, pa.Array) else pa.array(list(values), pa.large_binary(), mask=null)
    if array.null_count < int(null.sum()):
        array = pc.if_else(pa.array(null), None, array)
    return pc.fill_null(array.cast(pa.large_binary()), constant(b""))


def _as_binary(fixed: npt.NDArray[np.void]) -> pa.LargeBinaryArray:
    offsets = np.arange(len(fixed) + 1, dtype=np.int64) * fixed.dtype.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(fixed)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(fixed), buffers)


def _as_objects(texts: list[bytes], null: BoolArray, dtype: DType) -> npt.NDArray[Any]:
    objects = np.empty(len(texts), dtype=object)
    objects[:] = [text.decode() for text in texts] if dtype is DType.STRING else texts
    objects[null] = None
    return objects
