"""How states and what is appended to them lie in an online store: one binary string for each view and entity.

Little-endian int64 words::

    view's hash | number of slots, size when rolled up (u32 each) | m | slots | records
    slot        partition's hash, last applied position
    record      tag, words

An update holds the records of one entity from events of one partition::

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
_ROLL_RECORDS = 64  # milliseconds that a state may hold beside what was rolled up


class TileCodec:
    """Packs and unpacks the states of one view."""

    def __init__(self, view: WindowView) -> None:
        layout = StateLayout(view)
        self._view = view
        self._levels = len(view.hops)
        self._hashed = len(layout.hashed)
        self._record = 1 + layout.width + len(layout.hashed)
        self._mark = int(np.frombuffer(bytes.fromhex(view.hash)[:8], dtype="<i8")[0])
        self._empty = _HEAD.pack(self._mark, 0, 0, int(EVER))

    def updates(self, tiles: Tiles) -> pa.LargeBinaryArray:
        """Return the update of each entity; the events are of one partition.

        Every entity has an event.
        """
        slots = tiles.slots
        counts = np.bincount(tiles.entity, minlength=tiles.n)
        sizes = _PREFIX_WORDS + counts * self._record
        flat, begins = _laid_out(sizes)
        flat[begins], flat[begins + 1] = self._mark, _ROLL_RECORDS * 8 * self._record
        flat[begins + 2], flat[begins + 3], flat[begins + 4] = slots.partition, slots.first, slots.seq
        self._put_records(flat, begins + _PREFIX_WORDS, counts, tiles)
        return _binary(flat, sizes)

    def pack(self, tiles: Tiles) -> pa.LargeBinaryArray:
        """Return whole states, as they are after they were rolled up."""
        counts = np.bincount(tiles.entity, minlength=tiles.n)
        slots = np.bincount(tiles.slots.entity, minlength=tiles.n)
        sizes = _HEAD_WORDS + slots * _SLOT_WORDS + counts * self._record
        flat, begins = _laid_out(sizes)
        flat[begins] = self._mark
        flat[begins + 1] = slots | (sizes * 8) << 32
        flat[begins + 2] = tiles.m
        places = _places(begins + _HEAD_WORDS, slots, _SLOT_WORDS)
        flat[places], flat[places + 1] = tiles.slots.partition, tiles.slots.seq
        self._put_records(flat, begins + _HEAD_WORDS + slots * _SLOT_WORDS, counts, tiles)
        return _binary(flat, sizes)

    def unpack(self, states: Sequence[bytes | None]) -> Tiles:
        """Return the records of packed states; None is an entity without events.

        Raises:
            StoreError: a state is cut short or of another view.
        """
        n = len(states)
        filled = [self._empty if state is None else state for state in states]
        lengths = np.fromiter(map(len, filled), dtype=np.int64, count=n)
        self._refuse(filled, lengths < _HEAD.size)
        heads = np.frombuffer(b"".join([state[:24] for state in filled]), dtype="<i8").reshape(n, _HEAD_WORDS)
        slots = heads[:, 1] & 0xFFFFFFFF
        ends = 8 * (_HEAD_WORDS + _SLOT_WORDS * slots)
        rest = lengths - ends
        self._refuse(filled, (heads[:, 0] != self._mark) | (rest < 0) | (rest % (8 * self._record) != 0))
        bounds = ends.tolist()
        slot_words = np.frombuffer(
            b"".join([state[24:end] for state, end in zip(filled, bounds, strict=True)]), dtype="<i8"
        ).reshape(-1, _SLOT_WORDS)
        # Views: long states would be copied twice.
        body = b"".join([memoryview(state)[end:] for state, end in zip(filled, bounds, strict=True)])
        records = np.frombuffer(body, dtype="<i8").reshape(-1, self._record)
        entity = np.repeat(np.arange(n), rest // (8 * self._record))
        code = records[:, 0] & CODE
        level, kind = code & LEVEL, code >> KIND_BITS
        odd = np.flatnonzero((level > self._levels) | (kind > self._hashed) | ((level == 0) & (kind > 0)))
        if odd.size:
            self._refuse(filled, np.arange(n) == entity[odd[0]])
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
        """Return the records of the states that can be read, and which these are; the others count as empty."""
        try:
            return self.unpack(states), np.ones(len(states), dtype=np.bool_)
        except StoreError:
            sound = np.fromiter(map(self._is_sound, states), dtype=np.bool_, count=len(states))
        return self.unpack([state if ok else None for state, ok in zip(states, sound.tolist(), strict=True)]), sound

    @staticmethod
    def head(state: bytes | None) -> bytes:
        """Return the part of a state that changes whenever the state does: its head and slots; none: empty."""
        if state is None or len(state) < _HEAD.size:
            return state or b""
        slots = _HEAD.unpack_from(state)[1]
        return state[: 8 * (_HEAD_WORDS + _SLOT_WORDS * slots)]

    def _is_sound(self, state: bytes | None) -> bool:
        try:
            self.unpack([state])
        except StoreError:
            return False
        return True

    def _refuse(self, states: Sequence[bytes], bad: npt.NDArray[np.bool_]) -> None:
        if bad.any():
            raise StoreError(
                f"view {self._view.name!r}",
                "holds a state that this plan did not write",
                value=states[int(bad.argmax())][:40].hex(),
                fix=f"run `skewless backfill {self._view.name}`, or point at the right online store",
            )

    def _put_records(self, flat: Int64Array, begins: Int64Array, counts: Int64Array, tiles: Tiles) -> None:
        places = _places(begins, counts, self._record)
        flat[places] = tiles.tag
        for i in range(self._record - 1):
            flat[places + 1 + i] = tiles.words[:, i]


def _laid_out(sizes: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return room for pieces of some words each, one after the other, and where each begins."""
    return np.empty(int(sizes.sum()), dtype=np.int64), np.cumsum(sizes) - sizes


def _places(begins: Int64Array, counts: Int64Array, size: int) -> Int64Array:
    """Return where each of ``counts`` things of ``size`` words begins, thing after thing."""
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(begins, counts) + within * size, dtype=np.int64)


def _binary(flat: Int64Array, sizes: Int64Array) -> pa.LargeBinaryArray:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(8 * sizes, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(flat)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(sizes), buffers)
