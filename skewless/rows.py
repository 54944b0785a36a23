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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.dtypes import DType
from skewless.errors import StoreError
from skewless.plan import Column, View
from skewless.status import BoolArray, Int64Array

FORMAT = 1
RANK_BYTES = 32
NO_TIME = -(2**63)
TOMBSTONE = 1

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


@dataclass(frozen=True, kw_only=True)
class ViewRead:
    """What one view answered for n entities; the same shape from Redis and from the log.

    Args:
        found: whether there is a row that is not a tombstone.
        available: whether the store answered at all.
        versions: where each row comes from; meaningless where not found.
        values: per feature, an array of the feature's numpy type, shape ``(n,)``.
        nulls: per feature, where the value is null; true wherever nothing was found.
    """

    found: BoolArray
    available: bool
    versions: Versions
    values: Mapping[str, npt.NDArray[Any]]
    nulls: Mapping[str, BoolArray]


def blank_values(features: Sequence[Column], n: int) -> dict[str, npt.NDArray[Any]]:
    """Return zeros (None for text) of each feature's type, shape ``(n,)``."""
    return {
        column.name: np.full(n, None, dtype=object) if column.dtype.is_text else np.zeros(n, dtype=column.dtype.numpy)
        for column in features
    }


class RowCodec:
    """Packs and unpacks the rows of one view, many at a time."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._features = view.features
        self._hash = bytes.fromhex(view.hash)[:8]
        self._partition = partition_hash(view.partition)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Return the numpy type of a row without its heap."""
        columns = [(f"f{i}", "<u4" if c.dtype.is_text else c.dtype.numpy) for i, c in enumerate(self._features)]
        bitmap = [("nulls", "u1", ((len(self._features) + 7) // 8,))] if self._features else []
        rank = [("event", ">u8"), ("created", ">u8"), ("partition", ">u8"), ("seq", ">u8")]
        return np.dtype([*rank, ("view", "S8"), ("run", ">i8"), ("format", "u1"), ("flags", "u1"), *bitmap, *columns])

    def encode(
        self, versions: Versions, values: Mapping[str, npt.NDArray[Any]], nulls: Mapping[str, BoolArray]
    ) -> list[bytes]:
        """Return one packed row per entry of the parallel columns."""
        n = len(versions.seq)
        fixed = np.zeros(n, dtype=self.dtype)
        fixed["event"] = versions.event_ts.view(np.uint64) ^ _SIGN
        fixed["created"] = versions.created_ts.view(np.uint64) ^ _SIGN
        fixed["partition"] = self._partition
        fixed["seq"] = versions.seq
        fixed["run"] = versions.run_id
        fixed["format"] = FORMAT
        fixed["flags"] = versions.tombstone
        heaps = [b""] * n
        for i, column in enumerate(self._features):
            null = nulls[column.name]
            fixed["nulls"][:, i // 8] |= (null.astype(np.uint8) << (i % 8)).astype(np.uint8)
            if column.dtype.is_text:
                fixed[f"f{i}"] = _append_text(heaps, values[column.name], null)
            else:
                fixed[f"f{i}"] = np.where(null, 0, values[column.name])
        return self._join(fixed, heaps)

    def _join(self, fixed: npt.NDArray[np.void], heaps: list[bytes]) -> list[bytes]:
        # numpy's S8 drops trailing zero bytes, so the hash is patched in as raw bytes.
        raw = fixed.view(np.uint8).reshape(len(fixed), self.dtype.itemsize)
        raw[:, RANK_BYTES : RANK_BYTES + 8] = np.frombuffer(self._hash, dtype=np.uint8)
        return [row.tobytes() + heap for row, heap in zip(raw, heaps, strict=True)]

    def decode(self, rows: Sequence[bytes | None]) -> ViewRead:
        """Return the columns of packed rows; None is an entity without a row.

        Raises:
            StoreError: a row is cut short, of another view or of an unknown format.
        """
        n = len(rows)
        hit = np.fromiter((row is not None for row in rows), dtype=np.bool_, count=n)
        present = [row for row in rows if row is not None]
        self._check(present)
        size = self.dtype.itemsize
        fixed = np.frombuffer(b"".join(row[:size] for row in present), dtype=self.dtype)
        versions = _spread_versions(hit, fixed)
        found = hit & ~versions.tombstone
        values = blank_values(self._features, n)
        nulls = {}
        start = np.zeros(len(present), dtype=np.int64)
        for i, column in enumerate(self._features):
            null = np.ones(n, dtype=np.bool_)
            null[hit] = (fixed["nulls"][:, i // 8] >> (i % 8) & 1).astype(np.bool_)
            nulls[column.name] = null | ~found
            if column.dtype.is_text:
                end = fixed[f"f{i}"].astype(np.int64)
                texts = [row[size + a : size + b] for row, a, b in zip(present, start, end, strict=True)]
                values[column.name][hit] = _as_objects(texts, column.dtype)
                values[column.name][nulls[column.name]] = None
                start = end
            else:
                values[column.name][hit] = fixed[f"f{i}"]
        return ViewRead(found=found, available=True, versions=versions, values=values, nulls=nulls)

    def _check(self, rows: Sequence[bytes]) -> None:
        for row in rows:
            if len(row) != self._length(row) or row[48] != FORMAT or row[RANK_BYTES : RANK_BYTES + 8] != self._hash:
                raise StoreError(
                    f"view {self._view.name!r}",
                    "holds a row that this plan did not write",
                    value=row[:64].hex(),
                    fix="run `skewless materialize` after `skewless apply`, or point at the right Redis",
                )

    def _length(self, row: bytes) -> int:
        # The columns, then the heap, which the last text column says the end of.
        size, end = self.dtype.itemsize, self._heap_end
        heap = row[end : end + 4] if end is not None and len(row) >= size else b""
        return size + int.from_bytes(heap, "little")

    @cached_property
    def _heap_end(self) -> int | None:
        text = [f"f{i}" for i, column in enumerate(self._features) if column.dtype.is_text]
        fields = self.dtype.fields
        return fields[text[-1]][1] if text and fields else None


def missing(view: View, n: int, *, available: bool) -> ViewRead:
    """Return a read in which nothing was found, or in which the store did not answer."""
    return ViewRead(
        found=np.zeros(n, dtype=np.bool_),
        available=available,
        versions=Versions.empty(n),
        values=blank_values(view.features, n),
        nulls={column.name: np.ones(n, dtype=np.bool_) for column in view.features},
    )


def _append_text(heaps: list[bytes], values: npt.NDArray[Any], null: BoolArray) -> npt.NDArray[np.uint32]:
    ends = np.empty(len(heaps), dtype=np.uint32)
    for i, value in enumerate(values):
        if not null[i]:
            heaps[i] += value.encode() if isinstance(value, str) else value
        ends[i] = len(heaps[i])
    return ends


def _as_objects(texts: list[bytes], dtype: DType) -> npt.NDArray[Any]:
    objects = np.empty(len(texts), dtype=object)
    objects[:] = [text.decode() for text in texts] if dtype is DType.STRING else texts
    return objects


def _spread_versions(hit: BoolArray, fixed: npt.NDArray[np.void]) -> Versions:
    versions = Versions.empty(len(hit))
    event, created, seq = versions.event_ts.copy(), versions.created_ts.copy(), versions.seq
    event[hit] = (fixed["event"].astype(np.uint64) ^ _SIGN).view(np.int64)
    created[hit] = (fixed["created"].astype(np.uint64) ^ _SIGN).view(np.int64)
    seq[hit] = fixed["seq"]
    versions.run_id[hit] = fixed["run"]
    versions.tombstone[hit] = (fixed["flags"] & TOMBSTONE).astype(np.bool_)
    return Versions(event_ts=event, created_ts=created, seq=seq, run_id=versions.run_id, tombstone=versions.tombstone)
