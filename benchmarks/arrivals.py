"""When the requests of an open loop are due, whether or not the earlier ones were answered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Moments = npt.NDArray[np.float64]


def poisson(rate: float, seconds: float, seed: int = 11) -> Moments:
    """Return the moments of independent clients: gaps are exponential, shape ``(n,)``, seconds from the start."""
    rng = np.random.default_rng(seed)
    likely = rate * seconds
    gaps = rng.exponential(1 / rate, int(likely + 10 * likely**0.5 + 10))
    moments: Moments = np.cumsum(gaps)
    return moments[moments < seconds]


def constant(rate: float, seconds: float) -> Moments:
    """Return moments one after another at one distance.

    >>> constant(4, 1).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    return np.arange(int(rate * seconds)) / rate
