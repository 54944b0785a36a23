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
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.state_layout import EVER, StateLayout
from skewless.contract.windows.tiles import CODE, KIND_BITS, LEVEL, SLOT_WORDS, StoredPositions, Tiles
from skewless.contract.windows.view import WindowView

_HEAD = struct.Struct("<qIIq")
_NO_HEAD = (None, 0, 0, 0)
_HEAD_WORDS = 3
_PREFIX_WORDS = 5
ROLL_RECORDS = 64  # records of single milliseconds that a state may have in addition to its tiles


class TileCodec:
    """Encodes and decodes the states of one view.

    Args:
        view: the view.
        others: views of the same ``WindowView.structure``, whose states follow when states are decoded.
    """

    def __init__(self, view: WindowView, *others: WindowView) -> None:
        layout = StateLayout(view)
        self._views = (view, *others)
        self._record = 1 + layout.width + len(layout.hashed)
        self._hashes = [int.from_bytes(bytes.fromhex(each.hash)[:8], "little", signed=True) for each in self._views]
        codes = np.arange(CODE + 1, dtype=np.uint8)
        level, kind = codes & LEVEL, codes >> KIND_BITS
        is_possible = (level <= len(view.hops)) & (kind <= len(layout.hashed)) & ((level > 0) | (kind == 0))
        self._codes = codes[is_possible].tobytes()

    def size_of(self, records: float, slots: int = 1) -> float:
        """Return the bytes of a state of so many records, of events from so many partitions."""
        return 8 * (_HEAD_WORDS + SLOT_WORDS * slots + self._record * records)

    def updates(self, tiles: Tiles) -> pa.LargeBinaryArray:
        """Return the update of each entity.

        Args:
            tiles: records of events of one partition; each entity has at least one event.
        """
        slots = tiles.slots
        counts = np.bincount(tiles.entity, minlength=tiles.n)
        sizes = _PREFIX_WORDS + counts * self._record
        flat, begins = _allocate(sizes)
        flat[begins], flat[begins + 1] = self._hashes[0], ROLL_RECORDS * 8 * self._record
        flat[begins + 2], flat[begins + 3], flat[begins + 4] = slots.partition, slots.first, slots.seq
        self._put_records(flat, begins + _PREFIX_WORDS, counts, tiles)
        return _binary(flat, sizes)

    def pack(self, tiles: Tiles) -> pa.LargeBinaryArray:
        """Return complete states after a roll-up."""
        counts = np.bincount(tiles.entity, minlength=tiles.n)
        slots = np.bincount(tiles.slots.entity, minlength=tiles.n)
        sizes = _HEAD_WORDS + slots * SLOT_WORDS + counts * self._record
        flat, begins = _allocate(sizes)
        flat[begins] = self._hashes[0]
        # Two u32 in one little-endian word: the number of slots in its low half, the size in its high half.
        flat[begins + 1] = slots | (sizes * 8) << 32
        flat[begins + 2] = tiles.m
        positions = _item_starts(begins + _HEAD_WORDS, slots, SLOT_WORDS)
        flat[positions], flat[positions + 1] = tiles.slots.partition, tiles.slots.seq
        self._put_records(flat, begins + _HEAD_WORDS + slots * SLOT_WORDS, counts, tiles)
        return _binary(flat, sizes)

    def unpack(self, states: Sequence[bytes | None]) -> Tiles:
        """Return the records of packed states; None is an entity without events.

        Raises:
            StoreError: a state is incomplete or of another view.
        """
        tiles, unreadable = self._decode(states)
        if unreadable:
            view, state = self._views[min(unreadable) * len(self._views) // len(states)], states[min(unreadable)] or b""
            raise StoreError(
                f"view {view.name!r}",
                "has a state that this plan did not write",
                value=state[:40].hex(),
                fix=f"run `skewless backfill {view.name}`, or set the right online store",
            )
        return tiles

    def unpack_sound(self, states: Sequence[bytes | None]) -> tuple[Tiles, BoolArray]:
        """Return the records of all readable states, and which states are readable; unreadable states become empty."""
        tiles, unreadable = self._decode(states)
        is_readable = np.ones(len(states), dtype=np.bool_)
        is_readable[list(unreadable)] = False
        return tiles, is_readable

    def _decode(self, states: Sequence[bytes | None]) -> tuple[Tiles, set[int]]:
        """Return the records, and the positions of unreadable states, which have no records."""
        n, size = len(states), 8 * self._record
        times, counts = [int(EVER)] * n, [0] * n
        slots = [b""] * n
        bodies: list[memoryview] = []
        unreadable: set[int] = set()
        # A loop: these few steps for each state take less time than numpy's for all of them.
        for i, state in enumerate(states):
            if state is None:
                continue
            view_hash, n_slots, _, m = _HEAD.unpack_from(state) if len(state) >= _HEAD.size else _NO_HEAD
            end = _HEAD.size + 8 * SLOT_WORDS * n_slots
            n_records, rest = divmod(len(state) - end, size)
            is_own = view_hash == self._hashes[i * len(self._hashes) // n]
            # A state of another view can have the right length: the lowest byte of each tag must be possible, too.
            if rest or n_records < 0 or not is_own or state[end::size].translate(None, self._codes):
                unreadable.add(i)
                continue
            times[i], slots[i], counts[i] = m, state[_HEAD.size : end], n_records
            bodies.append(memoryview(state)[end:])  # slicing bytes would copy long states twice
        records = np.frombuffer(b"".join(bodies), dtype="<i8").reshape(-1, self._record)
        tiles = Tiles(
            n=n,
            m=np.array(times, dtype=np.int64),
            slots=StoredPositions(slots),
            entity=np.arange(n).repeat(counts) if n > 1 else np.zeros(len(records), dtype=np.int64),
            tag=records[:, 0],
            words=records[:, 1:],
        )
        return tiles, unreadable

    @staticmethod
    def head(state: bytes | None) -> bytes:
        """Return the head and slots of a state, which change with every change of the state; empty without a state."""
        if state is None or len(state) < _HEAD.size:
            return state or b""
        slots = _HEAD.unpack_from(state)[1]
        return state[: 8 * (_HEAD_WORDS + SLOT_WORDS * slots)]

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
