"""The status of a row that was read (SEMANTICS 2.5): one function for training and serving."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
StatusArray = npt.NDArray[np.uint8]


class Status(IntEnum):
    """Status of the row of one entity; NULL is the status of a single value of a PRESENT row."""

    PRESENT = 0
    NULL = 1
    NOT_FOUND = 2
    EXPIRED = 3
    FUTURE = 4
    UNAVAILABLE = 5


# Plain integers: numpy assigns enum members more slowly.
_NOT_FOUND, _EXPIRED, _FUTURE = (int(status) for status in (Status.NOT_FOUND, Status.EXPIRED, Status.FUTURE))


def row_status(has_row: BoolArray, event_ts: Int64Array, t: Int64Array | int, ttl_us: Int64Array | int) -> StatusArray:
    """Return the status of each row read at time ``t``, in the shape of ``has_row``.

    A row at exactly ``t - ttl`` is still PRESENT; ``ttl_us`` 0 means no limit.

    >>> row_status(np.array([True, True]), np.array([5, 4]), 10, 5).tolist()
    [0, 3]
    """
    status = np.zeros(has_row.shape, dtype=np.uint8)  # PRESENT
    if not isinstance(ttl_us, int):
        status[(event_ts < t - ttl_us) & (ttl_us > 0)] = _EXPIRED
    elif ttl_us > 0:
        status[event_ts < t - ttl_us] = _EXPIRED  # not `t - event_ts > ttl_us`: an age of more than 2^63 us would wrap
    status[event_ts > t] = _FUTURE
    # Last, so that it wins: without a row the times mean nothing.
    status[~has_row] = _NOT_FOUND
    return status


def count_statuses(status: npt.NDArray[Any]) -> dict[str, int]:
    """Return the number of rows by name of status; statuses without rows are omitted.

    >>> count_statuses(np.array([0, 0, 3]))
    {'PRESENT': 2, 'EXPIRED': 1}
    """
    values, counts = np.unique(status, return_counts=True)
    return {Status(value).name: int(count) for value, count in zip(values, counts, strict=True)}
