"""Columns derived from an event: numpy only, each event alone.

The text of this module travels in every model package.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64] | list[float | None]

LATE_MINUTES = 15


def late_departure(events: dict[str, Column]) -> dict[str, npt.NDArray[np.float64]]:
    """Return which flights left more than 15 minutes late: 1.0, 0.0, or NaN for unknown."""
    return {"late": _late(events["dep_delay"])}


def late_arrival(events: dict[str, Column]) -> dict[str, npt.NDArray[np.float64]]:
    """Return which flights landed more than 15 minutes late: 1.0, 0.0, or NaN for unknown."""
    return {"late": _late(events["arr_delay"])}


def _late(minutes: Column) -> npt.NDArray[np.float64]:
    delay = np.asarray(minutes, dtype=np.float64)
    return np.where(np.isnan(delay), np.nan, (delay > LATE_MINUTES).astype(np.float64))
