"""Encode and decode the states of the online store, and updates of them: one binary string per view and entity.

Little-endian int64 words::

    view's hash | number of slots, size when rolled up (u32 each) | m | slots | records
    slot        partition's hash, last applied position
    record      tag, words

An update has the records of one entity from events of one partition; the store appends them to the state::

    view's hash | limit | partition's hash, first and last position | records
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.state_layout import EVER, StateLayout
from skewless.contract.windows.tiles import CODE, KIND_BITS, LEVEL, AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView

_HEAD = struct.Struct("<qIIq")
_SLOT_WORDS = 2
_HEAD_WORDS = 3
_PREFIX_WORDS = 5
ROLL_RECORDS = 64  # records of single milliseconds that a state may have in addition to its tiles


class TileCodec:
    """Encodes and decodes the states of one view."""

    def __init__(self, view: WindowView) -> None:
        layout = StateLayout(view)
        self._view = view
        self._levels = len(view.hops)
        self._hashed = len(layout.hashed)
        self._record = 1 + layout.width + len(layout.hashed)
        self._view_hash = int(np.frombuffer(bytes.fromhex(view.hash)[:8], dtype="<i8")[0])
        self._empty = _HEAD.pack(self._view_hash, 0, 0, int(EVER))

    def size_of(self, records: float, slots: int = 1) -> float:
        """Return the bytes of a state of so many records, of events from so many partitions."""
        return 8 * (_HEAD_WORDS + _SLOT_WORDS * slots + self._record * records)

    def updates(self, tiles: Tiles) -> pa.LargeBinaryArray:
        """Return the update of each entity.

        Args:
            tiles: records of events of one partition; each entity has at least one event.
        """
        slots = tiles.slots
        counts = np.bincount(tiles.entity, minlength=tiles.n)
        sizes = _PREFIX_WORDS + counts * self._record
        flat, begins = _allocate(sizes)
        flat[begins], flat[begins + 1] = self._view_hash, ROLL_RECORDS * 8 * self._record
        flat[begins + 2], flat[begins + 3], flat[begins + 4] = slots.partition, slots.first, slots.seq
        self._put_records(flat, begins + _PREFIX_WORDS, counts, tiles)
        return _binary(flat, sizes)

    def pack(self, tiles: Tiles) -> pa.LargeBinaryArray:
        """Return complete states after a roll-up."""
        counts = np.bincount(tiles.entity, minlength=tiles.n)
        slots = np.bincount(tiles.slots.entity, minlength=tiles.n)
        sizes = _HEAD_WORDS + slots * _SLOT_WORDS + counts * self._record
        flat, begins = _allocate(sizes)
        flat[begins] = self._view_hash
        # Two u32 in one little-endian word: the number of slots in its low half, the size in its high half.
        flat[begins + 1] = slots | (sizes * 8) << 32
        flat[begins + 2] = tiles.m
        positions = _item_starts(begins + _HEAD_WORDS, slots, _SLOT_WORDS)
        flat[positions], flat[positions + 1] = tiles.slots.partition, tiles.slots.seq
        self._put_records(flat, begins + _HEAD_WORDS + slots * _SLOT_WORDS, counts, tiles)
        return _binary(flat, sizes)

    def unpack(self, states: Sequence[bytes | None]) -> Tiles:
        """Return the records of packed states; None is an entity without events.

        Raises:
            StoreError: a state is incomplete or of another view.
        """
        n = len(states)
        filled = [self._empty if state is None else state for state in states]
        lengths = np.fromiter(map(len, filled), dtype=np.int64, count=n)
        self._check_valid(filled, lengths < _HEAD.size)
        heads = np.frombuffer(b"".join([state[:24] for state in filled]), dtype="<i8").reshape(n, _HEAD_WORDS)
        slots = heads[:, 1] & 0xFFFFFFFF
        ends = 8 * (_HEAD_WORDS + _SLOT_WORDS * slots)
        rest = lengths - ends
        self._check_valid(filled, (heads[:, 0] != self._view_hash) | (rest < 0) | (rest % (8 * self._record) != 0))
        bounds = ends.tolist()
        slot_words = np.frombuffer(
            b"".join([state[24:end] for state, end in zip(filled, bounds, strict=True)]), dtype="<i8"
        ).reshape(-1, _SLOT_WORDS)
        # Memory views: slicing bytes would copy long states twice.
        body = b"".join([memoryview(state)[end:] for state, end in zip(filled, bounds, strict=True)])
        records = np.frombuffer(body, dtype="<i8").reshape(-1, self._record)
        entity = np.repeat(np.arange(n), rest // (8 * self._record))
        # A state of another view can have the right length: check that all tags are possible in this view.
        code = records[:, 0] & CODE
        level, kind = code & LEVEL, code >> KIND_BITS
        invalid = np.flatnonzero((level > self._levels) | (kind > self._hashed) | ((level == 0) & (kind > 0)))
        if invalid.size:
            self._check_valid(filled, np.arange(n) == entity[invalid[0]])
        return Tiles(
            n=n,
            m=heads[:, 2],
            slots=AppliedPositions(
                entity=np.repeat(np.arange(n), slots),
                partition=slot_words[:, 0],
                first=slot_words[:, 1],
                seq=slot_words[:, 1],
            ),
            entity=entity,
            tag=records[:, 0],
            words=records[:, 1:],
        )

    def unpack_sound(self, states: Sequence[bytes | None]) -> tuple[Tiles, BoolArray]:
        """Return the records of all readable states, and which states are readable; unreadable states become empty."""
        # Nearly always all states are readable, so only a failure pays for a check of each.
        try:
            return self.unpack(states), np.ones(len(states), dtype=np.bool_)
        except StoreError:
            readable = np.fromiter(map(self._is_readable, states), dtype=np.bool_, count=len(states))
        readable_states = [state if ok else None for state, ok in zip(states, readable.tolist(), strict=True)]
        return self.unpack(readable_states), readable

    @staticmethod
    def head(state: bytes | None) -> bytes:
        """Return the head and slots of a state, which change with every change of the state; empty without a state."""
        if state is None or len(state) < _HEAD.size:
            return state or b""
        slots = _HEAD.unpack_from(state)[1]
        return state[: 8 * (_HEAD_WORDS + _SLOT_WORDS * slots)]

    def _is_readable(self, state: bytes | None) -> bool:
        try:
            self.unpack([state])
        except StoreError:
            return False
        return True

    def _check_valid(self, states: Sequence[bytes], invalid: npt.NDArray[np.bool_]) -> None:
        if invalid.any():
            raise StoreError(
                f"view {self._view.name!r}",
                "has a state that this plan did not write",
                value=states[int(invalid.argmax())][:40].hex(),
                fix=f"run `skewless backfill {self._view.name}`, or set the right online store",
            )

    def _put_records(self, flat: Int64Array, begins: Int64Array, counts: Int64Array, tiles: Tiles) -> None:
        positions = _item_starts(begins, counts, self._record)
        flat[positions] = tiles.tag
        for i in range(self._record - 1):
            flat[positions + 1 + i] = tiles.words[:, i]


def _allocate(sizes: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return an uninitialized array for consecutive blocks of the given sizes, and the start of each block."""
    return np.empty(int(sizes.sum()), dtype=np.int64), np.cumsum(sizes) - sizes


def _item_starts(begins: Int64Array, counts: Int64Array, size: int) -> Int64Array:
    """Return the starts of ``counts`` items of ``size`` words each, from each of the positions ``begins``."""
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(begins, counts) + within * size, dtype=np.int64)


def _binary(flat: Int64Array, sizes: Int64Array) -> pa.LargeBinaryArray:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(8 * sizes, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(flat)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(sizes), buffers)
