"""Features that are computed for each request. This module imports numpy only: model packages contain its source."""

import numpy as np


def trip_time(inputs: dict[str, object]) -> dict[str, object]:
    """Return the hour of the day (UTC) at which a trip is due; times are int64 microseconds."""
    due = inputs["due"]
    if isinstance(due, list):  # Feast's own tools pass lists of times with the zone UTC
        naive = [item.replace(tzinfo=None) if hasattr(item, "tzinfo") else item for item in due]
        return {"hour": (np.asarray(naive, dtype="datetime64[us]").astype(np.int64) // 3_600_000_000 % 24.0).tolist()}
    return {"hour": (np.asarray(due, dtype=np.int64) // 3_600_000_000 % 24).astype(np.float64)}
