"""The policy about a departure: what the airline does before the flight has landed.

The module imports only numpy, because model packages contain its source.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[np.float64]]
Texts = npt.NDArray[np.object_]

WARN_FROM = 0.5
HOLD_FROM = 0.8
EVENING = 20  # hours by the origin's clock: the last connections of the day


def act(inputs: Columns) -> dict[str, Texts]:
    """Return the action about each departure, with its reasons: ``hold`` connections, ``warn`` passengers, or ``none``.

    Connections are held for a flight that will very likely arrive late. In the evening, when nothing leaves later, they
    are held as soon as passengers are warned.
    """
    score, hour = inputs["score"], inputs["departure__local_hour"]
    is_late, is_evening = score >= WARN_FROM, hour >= EVENING
    is_held = is_late & ((score >= HOLD_FROM) | is_evening)
    action = np.where(is_held, "hold", np.where(is_late, "warn", "none")).astype(object)
    reasons = np.where(is_late, "likely_late", "").astype(object)
    return {
        "action": action,
        "reasons": reasons + np.where(is_held & is_evening, " last_connection", "").astype(object),
    }
