"""The online states of windowed views: a set of records per entity, merged when it is read (SEMANTICS 3.5, 3.7).

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

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Int64Array
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.sketch import Hashes
from skewless.contract.windows.state_layout import EVER, EventOrigins, StateLayout

CODE_BITS = 8
KIND_BITS = 4
LEVEL = (1 << KIND_BITS) - 1  # mask of the level in a tag
CODE = (1 << CODE_BITS) - 1  # mask of kind and level in a tag


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


@dataclass(frozen=True, kw_only=True)
class Tiles:
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


def find_run_starts(*columns: Int64Array) -> npt.NDArray[np.intp]:
    """Return the starts of runs of equal rows in sorted columns.

    >>> find_run_starts(np.array([1, 1, 2]), np.array([5, 5, 5])).tolist()
    [0, 2]
    """
    new = np.zeros(len(columns[0]), dtype=np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)
