"""What is counted of the rows of one view."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skewless.contract.status import Status, StatusArray
from skewless.serving.metrics.metrics import Metrics

_ABSENT = (int(Status.NOT_FOUND), int(Status.UNAVAILABLE))


class ViewCounts:
    """Counts one view's rows by status, age and staleness; made once a view, not once a request."""

    def __init__(self, metrics: Metrics, view: str) -> None:
        self._by_status = [metrics.reads(view, status.name) for status in Status]
        self._ages = metrics.ages(view)
        self._stale = metrics.stale(view)
        self._watermark = metrics.watermark(view)

    def show_watermark(self, moment_us: int) -> None:
        """Show up to when all that had arrived was in the view, microseconds; 0, unknown, leaves what was shown."""
        if moment_us:
            self._watermark.set(moment_us / 1e6)

    def count(self, status: StatusArray, ages: npt.NDArray[np.float64], stale: int = 0) -> None:
        """Count many rows; 7 us for 100.

        Args:
            status: of each row, shape ``(n,)``.
            ages: seconds, of those rows that were found, in any order.
            stale: how many were older than the freshness limit.
        """
        for series, n in zip(self._by_status, np.bincount(status, minlength=len(Status)).tolist(), strict=True):
            series.value += n
        self._ages.observe_many(ages)
        self._stale.value += stale

    def count_present(self, ages: npt.NDArray[np.float64], stale: int) -> None:
        """Count many rows that are all PRESENT; as in ``count``."""
        self._by_status[Status.PRESENT].value += ages.size
        self._ages.observe_many(ages)
        self._stale.value += stale

    def count_one(self, code: int, age: float, *, old: bool, frozen: bool) -> None:
        """Count one row.

        Args:
            age: seconds; it counts if a row was found.
            old: whether the row, if one was found, is older than the freshness limit.
            frozen: whether its view has not been updated for so long.
        """
        self._by_status[code].value += 1
        found = code not in _ABSENT
        if found:
            self._ages.observe(age)
        self._stale.value += (old and found) or (frozen and code != Status.UNAVAILABLE)
