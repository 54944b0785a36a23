"""Roll up states: merge records of milliseconds into tiles, and drop tiles that no window can reach any more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.hops import MILLISECOND, window_start
from skewless.contract.windows.sketch import NO_HASH, Hashes, select_smallest
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import CODE, CODE_BITS, KIND_BITS, LEVEL, Tiles, find_run_starts
from skewless.contract.windows.view import WindowView


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
        return replace(tiles, m=rolled_to, entity=entity[order], tag=tag[order], words=rows[order])

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
