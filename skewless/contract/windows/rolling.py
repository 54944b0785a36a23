"""Rolling up: events before a moment from milliseconds into tiles, and tiles that no window reaches any more, away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.hops import MILLISECOND, window_start
from skewless.contract.windows.sketch import NO_HASH, Hashes, smallest
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import CODE, CODE_BITS, KIND_BITS, LEVEL, Tiles, starts_of
from skewless.contract.windows.view import WindowView


class Roller:
    """Rolls up the states of one view."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)
        self._hops = np.array([MILLISECOND, *view.hops], dtype=np.int64)
        self._longest = [max(length for length, hop in view.windows if hop == each) for each in view.hops]

    def roll(self, tiles: Tiles, m: int) -> Tiles:
        """Return the same states with all events before ``m`` in tiles; windows at ``m`` or later stay as they are.

        Args:
            m: microseconds, floored to the millisecond; a state that was rolled up later stays so.
        """
        moment = np.maximum(tiles.m, m // MILLISECOND * MILLISECOND)
        begin = (tiles.tag >> CODE_BITS) * self._hops[tiles.tag & LEVEL]
        fine = (tiles.tag & CODE) == 0
        ripe = fine & (begin < moment[tiles.entity])
        keep = fine & ~ripe
        entity, tag, words = self._tiles_of(tiles, ripe, begin)
        reached = self._reached(entity, tag, moment)
        entity, tag, words = entity[reached], tag[reached], words[reached]
        parts = [(tiles.entity[keep], tiles.tag[keep], tiles.words[keep])]
        state = (tag & CODE) >> KIND_BITS == 0
        parts.append(self._merged(entity[state], tag[state], words[state]))
        if self._layout.hashed:
            parts.append(self._sketches(entity, tag, words, state))
        entity, tag = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        rows = np.concatenate([part[2] for part in parts])
        order = np.argsort(entity, kind="stable")
        return replace(tiles, m=moment, entity=entity[order], tag=tag[order], words=rows[order])

    def _tiles_of(
        self, tiles: Tiles, ripe: npt.NDArray[np.bool_], begin: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Return the records that are tiles already, and one for each ripe millisecond and level."""
        old = (tiles.tag & CODE) != 0
        entities, tags, rows = [tiles.entity[old]], [tiles.tag[old]], [tiles.words[old]]
        for level, hop in enumerate(self._view.hops, start=1):
            entities.append(tiles.entity[ripe])
            tags.append(((begin[ripe] // hop) << CODE_BITS) | level)
            rows.append(tiles.words[ripe])
        return np.concatenate(entities), np.concatenate(tags), np.concatenate(rows)

    def _reached(self, entity: Int64Array, tag: Int64Array, moment: Int64Array) -> npt.NDArray[np.bool_]:
        level = tag & LEVEL
        begin = (tag >> CODE_BITS) * self._hops[level]
        reached = np.zeros(len(tag), dtype=np.bool_)
        for i, (hop, longest) in enumerate(zip(self._view.hops, self._longest, strict=True), start=1):
            edge = window_start(moment, longest, hop)
            reached |= (level == i) & (begin >= edge[entity])
        return reached

    def _merged(
        self, entity: Int64Array, tag: Int64Array, rows: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        order = np.lexsort((tag, entity))
        entity, tag = entity[order], tag[order]
        starts = starts_of(entity, tag)
        merged = np.full((len(starts), rows.shape[1]), NO_HASH.view(np.int64), dtype=np.int64)
        width = self._layout.width
        if width:
            merged[:, :width] = self._layout.merged(np.ascontiguousarray(rows[order, :width].T), starts).T
        # A tile's hashes stand in records of their own; where there is nothing else, so does all of it.
        return (entity[starts], tag[starts], merged) if width else (entity[:0], tag[:0], merged[:0])

    def _sketches(
        self, entity: Int64Array, tag: Int64Array, rows: Int64Array, state: npt.NDArray[np.bool_]
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Return records of the smallest hashes of each tile and column."""
        columns = range(len(self._layout.hashed))
        kind = (tag & CODE) >> KIND_BITS
        size = rows.shape[1]
        found = [
            (entity[state], tag[state] | ((c + 1) << KIND_BITS), rows[state, self._layout.width + c]) for c in columns
        ] + [
            (np.repeat(entity[kind == c + 1], size), np.repeat(tag[kind == c + 1], size), rows[kind == c + 1].ravel())
            for c in columns
        ]
        entity, tag = (np.concatenate([part[i] for part in found]) for i in (0, 1))
        hashes: Hashes = np.concatenate([part[2] for part in found]).view(np.uint64)
        return self._packed(entity, tag, hashes, size)

    def _packed(
        self, entity: Int64Array, tag: Int64Array, hashes: Hashes, size: int
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        order = np.lexsort((tag, entity))
        entity, tag, hashes = entity[order], tag[order], hashes[order]
        starts = starts_of(entity, tag)
        lengths = np.diff(np.append(starts, len(order)))
        group, kept = smallest(np.repeat(np.arange(len(starts)), lengths), hashes, self._view.sketch_size)
        counts = np.bincount(group, minlength=len(starts))
        within = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        records = -(-counts // size)
        first = np.cumsum(records) - records
        rows = np.full((int(records.sum()), size), NO_HASH, dtype=np.uint64)
        rows[first[group] + within // size, within % size] = kept
        which = np.repeat(starts, records)
        return entity[which], tag[which], rows.view(np.int64)
