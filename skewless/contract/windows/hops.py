"""Compute the start of time windows, which move in hops (SEMANTICS 3.1, 3.2).

::

    hop             |-------|-------|-------|-------|
    window W at t       L = floor((t - W) / H) * H      t
                        [-------------------------------)

A window is left-closed and right-open. Its left edge moves in hops, so its length is between W and W + H.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from skewless.contract.errors import DefinitionError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MILLISECOND = 1_000

# As in Chronon: windows below 12 hours have hops of 5 minutes, below 12 days of one hour, others of one day.
_HOPS = ((12 * HOUR, 5 * MINUTE), (12 * DAY, HOUR))

_Times = TypeVar("_Times", int, npt.NDArray[np.int64])


def window_start(t: _Times, window_us: int, hop_us: int) -> _Times:
    """Return the left edge of a window at time ``t``, microseconds; floored towards minus infinity.

    >>> window_start(2 * HOUR + 7 * MINUTE, HOUR, 5 * MINUTE) == HOUR + 5 * MINUTE
    True
    >>> window_start(-1, HOUR, 5 * MINUTE) == -HOUR - 5 * MINUTE
    True
    """
    return (t - window_us) // hop_us * hop_us


def default_hop(window_us: int) -> int:
    """Return the default hop of a window, microseconds.

    >>> [default_hop(length) // MINUTE for length in (HOUR, 12 * HOUR, 12 * DAY)]
    [5, 60, 1440]
    """
    return next((hop for limit, hop in _HOPS if window_us < limit), DAY)


def check_hops(owner: str, lengths: list[tuple[int, int]]) -> None:
    """Check that windows (length, hop) can share tiles.

    Raises:
        DefinitionError: a hop is not shorter than its window or not whole seconds, or does not divide the next larger.
    """
    for window_us, hop_us in lengths:
        if not SECOND <= hop_us < window_us or hop_us % SECOND:
            raise DefinitionError(
                f"{owner} window of {window_us // SECOND} s",
                "has a hop that is not a whole number of seconds below its length",
                value=f"{hop_us / SECOND:g} s",
                fix="choose tiling_hop_size or slide_interval shorter than the window",
            )
    hops = sorted({hop for _, hop in lengths})
    for small, large in pairwise(hops):
        if large % small:
            raise DefinitionError(
                owner,
                "has a hop that does not divide the next larger hop",
                value=f"{small // SECOND} s and {large // SECOND} s",
                fix="choose hops that are multiples of each other",
            )
