"""Holes: positions of a log that no segment has, because its catalog was altered or lost rows (SEMANTICS 1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skewless.contract.errors import StoreError

if TYPE_CHECKING:
    from skewless.infra.log.catalog import Segment

# Their rows are never removed: an erased one keeps its position. Those of other logs expire, or are erased as a whole.
_WITHOUT_HOLES = ("batch/", "events/")
_FIX = "restore the database from a backup that is older than this, then run skewless recover"


def check_holes(partition: str, segments: Sequence[Segment], first: int, last: int | None = None) -> None:
    """Check that each position from ``first`` to ``last``, both included, is in one segment, if rows are never removed.

    Args:
        segments: of the partition, in order: all that have one of the positions.
        last: None: the last position of the segments.

    Raises:
        StoreError: a position is in no segment, or in two.
    """
    if not partition.startswith(_WITHOUT_HOLES):
        return
    expected = segments[0].first if segments and segments[0].first <= first else max(first, 0)
    for segment in segments:
        _check(partition, expected, segment.first)
        expected = segment.last + 1
    if last is not None and expected <= last:
        _check(partition, expected, last + 1)


def _check(partition: str, expected: int, found: int) -> None:
    if expected != found:
        kind = "has a hole: no segment has" if expected < found else "has rows twice: two segments have"
        problem = f"{kind} its rows {min(expected, found)} to {max(expected, found) - 1}"
        raise StoreError(f"log partition {partition!r}", problem, fix=_FIX)
