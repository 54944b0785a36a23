"""The online states of windowed views: records of each entity, rolled up, and merged when read (SEMANTICS 3.5, 3.7).

A record is the state of one interval. New events are records of one millisecond, from which any window can be
computed. Records before a time m are rolled up, for each hop of the view, into tiles of that hop::

    level 2   |-------------- 1 h --------------|------------
    level 1   |5 min|5 min|5 min|5 min|5 min|...|5 min|
    level 0                                              m  ' ' '' '   '     milliseconds

A window of hop H at t >= m consists of the tiles of its level from its left edge on, and the milliseconds before t.
Merging does not depend on the order, so writers only append; a writer that finds a long state rolls it up.

The tag of a record identifies its interval: index of the interval * 256 + kind * 16 + level. Records of kind 0 have a
state and the hashes of the event's distinct columns. Records of kind 1 and up have only hashes: the smallest hashes of
one column in a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.hops import MILLISECOND, window_start
from skewless.contract.windows.sketch import NO_HASH, Hashes, select_smallest
from skewless.contract.windows.state_layout import EVER, EventOrigins, StateLayout
from skewless.contract.windows.view import WindowView

CODE_BITS = 8
KIND_BITS = 4
LEVEL = (1 << KIND_BITS) - 1  # mask of the level in a tag
CODE = (1 << CODE_BITS) - 1  # mask of kind and level in a tag
SLOT_WORDS = 2


@dataclass(frozen=True, kw_only=True)
class AppliedPositions:
    """The last applied position of each partition with events of an entity, sorted by entity.

    Args:
        entity: number of the entity, growing.
        partition: hash of the log partition, signed.
        first: the first applied position if the tiles are an update; else equal to ``seq``.
        seq: the last applied position.
    """

    entity: Int64Array
    partition: Int64Array
    first: Int64Array
    seq: Int64Array

    @classmethod
    def empty(cls) -> AppliedPositions:
        """Return no positions."""
        no_values = np.empty(0, dtype=np.int64)
        return cls(entity=no_values, partition=no_values, first=no_values, seq=no_values)

    @classmethod
    def from_events(cls, entity: Int64Array, origin: EventOrigins) -> AppliedPositions:
        """Return the first and last positions of some events, which may be in any order."""
        order = np.lexsort((origin.seq, origin.partition, entity))
        entity, partition, seq = entity[order], origin.partition[order], origin.seq[order]
        starts = find_run_starts(entity, partition)
        last = np.append(starts[1:], len(order)) - 1 if len(order) else starts
        return cls(entity=entity[starts], partition=partition[starts], first=seq[starts], seq=seq[last])

    def of_entities(self, start: int, stop: int) -> AppliedPositions:
        """Return the positions of the entities ``start`` to ``stop``, end exclusive, whose numbers begin at 0 again."""
        part = slice(*self.entity.searchsorted((start, stop)).tolist())
        entity, partition, first, seq = (own[part] for own in (self.entity, self.partition, self.first, self.seq))
        return AppliedPositions(entity=entity - start, partition=partition, first=first, seq=seq)

    @staticmethod
    def concatenate(parts: Sequence[AppliedPositions], sizes: Int64Array) -> AppliedPositions:
        """Return the positions of groups of entities of some sizes, numbered one group after the other."""
        stored = [part for part in parts if isinstance(part, StoredPositions)]
        if len(stored) == len(parts):
            return StoredPositions([slots for part in stored for slots in part.slots])
        before = np.repeat(np.cumsum(sizes) - sizes, [len(part.seq) for part in parts])
        entity, partition, first, seq = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("entity", "partition", "first", "seq")
        )
        return AppliedPositions(entity=entity + before, partition=partition, first=first, seq=seq)

    def extend(self, later: AppliedPositions) -> AppliedPositions:
        """Return the first and last positions of both."""
        entity, partition = (
            np.concatenate([one, one, other, other])
            for one, other in ((self.entity, later.entity), (self.partition, later.partition))
        )
        seq = np.concatenate([self.first, self.seq, later.first, later.seq])
        return self.from_events(entity, EventOrigins(ts=seq, partition=partition, seq=seq))


class StoredPositions(AppliedPositions):
    """The applied positions of states, decoded on access: a prediction only logs them.

    Args:
        slots: per entity, the slots of its state, each a partition and a position as little-endian int64.
    """

    def __init__(self, slots: Sequence[bytes]) -> None:
        # Past the frozen dataclass, which allows no assignment; fields that are not set yet go to `__getattr__`.
        self.__dict__["slots"] = slots

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the fields of AppliedPositions
        words = np.frombuffer(b"".join(self.slots), dtype="<i8").reshape(-1, SLOT_WORDS)
        entity = np.arange(len(self.slots)).repeat([len(slots) // (8 * SLOT_WORDS) for slots in self.slots])
        self.__dict__.update(entity=entity, partition=words[:, 0], first=words[:, 1], seq=words[:, 1])
        return self.__dict__[name]

    def of_entities(self, start: int, stop: int) -> AppliedPositions:
        """Return the positions of some entities."""
        return StoredPositions(self.slots[start:stop])


class Tiles(NamedTuple):
    """The records of n entities.

    Args:
        n: number of entities.
        m: time up to which events are rolled up, microseconds, shape ``(n,)``; int64 minimum: never.
        slots: the applied positions.
        entity: entity of each record, growing.
        tag: tag of each record.
        words: words of each record, shape ``(r, width + hashed)``.
    """

    n: int
    m: Int64Array
    slots: AppliedPositions
    entity: Int64Array
    tag: Int64Array
    words: Int64Array

    @classmethod
    def from_events(
        cls, layout: StateLayout, n: int, entity: Int64Array, origin: EventOrigins, words: Int64Array, hashes: Hashes
    ) -> Tiles:
        """Return events of n entities as records of milliseconds; without hashes, one record per millisecond.

        Args:
            entity: number of each event's entity, from 0, in any order.
            words: states of the events, shape ``(width, events)``.
            hashes: hashes of the hashed columns, shape ``(hashed, events)``.
        """
        # Kind 0 and level 0: the low bits of the tag stay 0.
        tag = (origin.ts // MILLISECOND) << CODE_BITS
        order = np.lexsort((tag, entity))
        slots = AppliedPositions.from_events(entity, origin)
        entity, tag, words = entity[order], tag[order], words[:, order]
        if len(hashes):
            # Each event keeps its own record, which has room for one hash of each column.
            rows = np.concatenate([words, hashes[:, order].view(np.int64)]).T
        else:
            starts = find_run_starts(entity, tag)
            entity, tag, rows = entity[starts], tag[starts], layout.merge(words, starts).T
        m = np.full(n, EVER)
        return cls(n=n, m=m, slots=slots, entity=entity, tag=tag, words=np.ascontiguousarray(rows))

    def take(self, entities: Int64Array) -> Tiles:
        """Return the records of some entities, each any number of times; without slots."""
        bounds = np.searchsorted(self.entity, np.arange(self.n + 1))
        lengths = np.diff(bounds)[entities]
        entity = np.repeat(np.arange(len(entities)), lengths)
        within = np.arange(len(entity)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = bounds[:-1][entities][entity] + within
        return Tiles(
            n=len(entities),
            m=self.m[entities],
            slots=AppliedPositions.empty(),
            entity=entity,
            tag=self.tag[rows],
            words=self.words.take(rows, axis=0),
        )

    def extend(self, layout: StateLayout, later: Tiles) -> Tiles:
        """Return the records of both, of the same entities; no event may be in both. ``Roller.roll`` merges tiles."""
        entity, tag = np.concatenate([self.entity, later.entity]), np.concatenate([self.tag, later.tag])
        order = np.lexsort((tag, entity))
        entity, tag, words = entity[order], tag[order], np.concatenate([self.words, later.words])[order]
        if not layout.hashed:
            starts = find_run_starts(entity, tag)
            entity, tag, words = entity[starts], tag[starts], layout.merge(np.ascontiguousarray(words.T), starts).T
        slots, rows = self.slots.extend(later.slots), np.ascontiguousarray(words)
        return self._replace(m=np.maximum(self.m, later.m), slots=slots, entity=entity, tag=tag, words=rows)


def find_run_starts(*columns: Int64Array) -> npt.NDArray[np.intp]:
    """Return the starts of runs of equal rows in sorted columns.

    >>> find_run_starts(np.array([1, 1, 2]), np.array([5, 5, 5])).tolist()
    [0, 2]
    """
    new = np.ones(len(columns[0]), dtype=np.bool_)
    np.not_equal(columns[0][1:], columns[0][:-1], out=new[1:])
    for column in columns[1:]:
        new[1:] |= column[1:] != column[:-1]
    return new.nonzero()[0]


class Roller:
    """Rolls up the states of one view."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._hops = np.array([MILLISECOND, *view.hops], dtype=np.int64)
        # Windows of one hop share their tiles, so the longest decides how long a tile is needed.
        self._longest = [max(length for length, hop in view.windows if hop == each) for each in view.hops]

    def roll(self, tiles: Tiles, m: int) -> Tiles:
        """Return the states with all events before ``m`` in tiles; this does not change any window at ``m`` or later.

        Args:
            m: microseconds, floored to the millisecond; a state that was rolled up to a later time keeps that time.
        """
        rolled_to = np.maximum(tiles.m, m // MILLISECOND * MILLISECOND)
        begin = (tiles.tag >> CODE_BITS) * self._hops[tiles.tag & LEVEL]
        is_fine = (tiles.tag & CODE) == 0
        is_due = is_fine & (begin < rolled_to[tiles.entity])
        keep = is_fine & ~is_due
        entity, tag, words = self._split_into_levels(tiles, is_due, begin)
        reachable = self._find_reachable(entity, tag, rolled_to)
        entity, tag, words = entity[reachable], tag[reachable], words[reachable]
        parts = [(tiles.entity[keep], tiles.tag[keep], tiles.words[keep])]
        state = (tag & CODE) >> KIND_BITS == 0
        # Records of kind 0 are states and merge; records of other kinds are hashes and merge as sketches.
        parts.append(self._merge(entity[state], tag[state], words[state]))
        if self._layout.hashed:
            parts.append(self._merge_sketches(entity, tag, words, state))
        entity, tag = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        rows = np.concatenate([part[2] for part in parts])
        order = np.argsort(entity, kind="stable")
        return tiles._replace(m=rolled_to, entity=entity[order], tag=tag[order], words=rows[order])

    def _split_into_levels(
        self, tiles: Tiles, is_due: npt.NDArray[np.bool_], begin: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Return the existing tiles, and one record for each due millisecond and level."""
        old = (tiles.tag & CODE) != 0
        entities, tags, rows = [tiles.entity[old]], [tiles.tag[old]], [tiles.words[old]]
        for level, hop in enumerate(self._view.hops, start=1):
            entities.append(tiles.entity[is_due])
            tags.append(((begin[is_due] // hop) << CODE_BITS) | level)
            rows.append(tiles.words[is_due])
        return np.concatenate(entities), np.concatenate(tags), np.concatenate(rows)

    def _find_reachable(self, entity: Int64Array, tag: Int64Array, rolled_to: Int64Array) -> npt.NDArray[np.bool_]:
        """Return which tiles a window at ``rolled_to`` or later can still reach."""
        level = tag & LEVEL
        begin = (tag >> CODE_BITS) * self._hops[level]
        reachable = np.zeros(len(tag), dtype=np.bool_)
        for i, (hop, longest) in enumerate(zip(self._view.hops, self._longest, strict=True), start=1):
            edge = window_start(rolled_to, longest, hop)
            reachable |= (level == i) & (begin >= edge[entity])
        return reachable

    def _merge(
        self, entity: Int64Array, tag: Int64Array, rows: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        order = np.lexsort((tag, entity))
        entity, tag = entity[order], tag[order]
        starts = find_run_starts(entity, tag)
        # A merged tile has no hashes of its own: they are records of other kinds.
        merged = np.full((len(starts), rows.shape[1]), NO_HASH.view(np.int64), dtype=np.int64)
        width = self._layout.width
        if width:
            merged[:, :width] = self._layout.merge(np.ascontiguousarray(rows[order, :width].T), starts).T
        # The hashes of a tile are separate records; a view with only hashes has no other records.
        return (entity[starts], tag[starts], merged) if width else (entity[:0], tag[:0], merged[:0])

    def _merge_sketches(
        self, entity: Int64Array, tag: Int64Array, rows: Int64Array, state: npt.NDArray[np.bool_]
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Return records with the smallest hashes of each tile and column."""
        columns = range(len(self._layout.hashed))
        kind = (tag & CODE) >> KIND_BITS
        size = rows.shape[1]
        parts = [
            (entity[state], tag[state] | ((c + 1) << KIND_BITS), rows[state, self._layout.width + c]) for c in columns
        ] + [
            (np.repeat(entity[kind == c + 1], size), np.repeat(tag[kind == c + 1], size), rows[kind == c + 1].ravel())
            for c in columns
        ]
        entity, tag = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        hashes: Hashes = np.concatenate([part[2] for part in parts]).view(np.uint64)
        return self._pack_hashes(entity, tag, hashes, size)

    def _pack_hashes(
        self, entity: Int64Array, tag: Int64Array, hashes: Hashes, size: int
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        order = np.lexsort((tag, entity))
        entity, tag, hashes = entity[order], tag[order], hashes[order]
        starts = find_run_starts(entity, tag)
        lengths = np.diff(np.append(starts, len(order)))
        group, smallest = select_smallest(np.repeat(np.arange(len(starts)), lengths), hashes, self._view.sketch_size)
        counts = np.bincount(group, minlength=len(starts))
        within = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        # A record has room for `size` hashes, so a sketch may need several records with one tag.
        records = -(-counts // size)
        first = np.cumsum(records) - records
        rows = np.full((int(records.sum()), size), NO_HASH, dtype=np.uint64)
        rows[first[group] + within // size, within % size] = smallest
        tile = np.repeat(starts, records)
        return entity[tile], tag[tile], rows.view(np.int64)
