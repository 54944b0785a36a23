"""The online state of windowed views: for each entity a set of records, merged when it is read (SEMANTICS 3.5, 3.7).

A record says what happened in some piece of time. Events are first kept in pieces of a millisecond, which any
window can be cut out of; pieces before a moment m are rolled up, for each hop of the view, into tiles of that hop::

    level 2   |-------------- 1 h --------------|------------
    level 1   |5 min|5 min|5 min|5 min|5 min|...|5 min|
    level 0                                              m  ' ' '' '   '     milliseconds

A window of hop H at t >= m is the tiles of its level from its left edge on, and the milliseconds before t. Since
merging takes any order, writers only append; whoever finds a state long rolls it up.

A tag says which piece a record is about: index of the piece * 256 + kind * 16 + level. Records of kind 0 hold a
state, and beside it the hashes of the event's distinct columns. Those of kind 1 and up hold hashes alone: the
smallest ones of one column in a tile.
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
LEVEL = (1 << KIND_BITS) - 1  # the part of a tag that says the level
CODE = (1 << CODE_BITS) - 1  # kind and level


@dataclass(frozen=True, kw_only=True)
class AppliedPositions:
    """The last applied position of each partition that ever touched an entity, by entity.

    Args:
        entity: growing.
        partition: hash of the log partition, signed.
        first: the first of the positions, where the state is that of some events; else that of ``seq``.
    """

    entity: Int64Array
    partition: Int64Array
    first: Int64Array
    seq: Int64Array

    @classmethod
    def none(cls) -> AppliedPositions:
        """Return no slots."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(entity=nothing, partition=nothing, first=nothing, seq=nothing)

    @classmethod
    def of_events(cls, entity: Int64Array, origin: EventOrigins) -> AppliedPositions:
        """Return the positions that some events have, in any order."""
        order = np.lexsort((origin.seq, origin.partition, entity))
        entity, partition, seq = entity[order], origin.partition[order], origin.seq[order]
        starts = starts_of(entity, partition)
        last = np.append(starts[1:], len(order)) - 1 if len(order) else starts
        return cls(entity=entity[starts], partition=partition[starts], first=seq[starts], seq=seq[last])


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The records of n entities.

    Args:
        n: how many entities.
        m: before which moment events were rolled up, microseconds, shape ``(n,)``; int64 minimum: never.
        entity: of each record, growing.
        tag: of each record.
        words: of each record, shape ``(r, width + hashed)``.
    """

    n: int
    m: Int64Array
    slots: AppliedPositions
    entity: Int64Array
    tag: Int64Array
    words: Int64Array

    @classmethod
    def of_events(
        cls, layout: StateLayout, n: int, entity: Int64Array, origin: EventOrigins, words: Int64Array, hashes: Hashes
    ) -> Tiles:
        """Return events of n entities as records of milliseconds; those of one millisecond are one, unless hashed.

        Args:
            entity: which entity each event belongs to, from 0; in any order.
            words: of the states, shape ``(width, events)``.
            hashes: of the hashed columns, shape ``(hashed, events)``.
        """
        tag = (origin.ts // MILLISECOND) << CODE_BITS
        order = np.lexsort((tag, entity))
        slots = AppliedPositions.of_events(entity, origin)
        entity, tag, words = entity[order], tag[order], words[:, order]
        if len(hashes):
            rows = np.concatenate([words, hashes[:, order].view(np.int64)]).T
        else:
            starts = starts_of(entity, tag)
            entity, tag, rows = entity[starts], tag[starts], layout.merged(words, starts).T
        m = np.full(n, EVER)
        return cls(n=n, m=m, slots=slots, entity=entity, tag=tag, words=np.ascontiguousarray(rows))


def starts_of(*columns: Int64Array) -> npt.NDArray[np.intp]:
    """Return where runs of equal rows of sorted columns begin.

    >>> starts_of(np.array([1, 1, 2]), np.array([5, 5, 5])).tolist()
    [0, 2]
    """
    new = np.zeros(len(columns[0]), dtype=np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)
