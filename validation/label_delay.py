"""How long labels take, seen from a moment when many are still to come."""

from __future__ import annotations

import numpy as np

from skewless.contract.status import Int64Array

QUANTILE = 0.9
_ROUNDING = 1e-12


def delay_quantile(delays: Int64Array, ages: Int64Array, quantile: float = QUANTILE) -> int | None:
    """Return the delay within which a share of the labels come; None without any.

    What is young shows its short delays only (right truncation): counting those would promise too much. This is the
    reverse-time product-limit estimator (Lagakos, Barraj and De Gruttola, 1988), which asks of each delay how often it
    was met among rows old enough to have shown it. Delays longer than any age are beyond it.

    Args:
        delays: ``(n,)`` from prediction to label, microseconds; negative ones count as 0.
        ages: ``(n,)`` of the same predictions now, at least their delays.
        quantile: the share, above 0 and at most 1.

    >>> delay_quantile(np.array([1, 1, 5, 5]), np.array([9, 9, 9, 9]), 0.5)
    1
    """
    if not delays.size:
        return None
    values, met = np.unique(np.maximum(delays, 0), return_counts=True)
    shown = np.searchsorted(np.sort(delays), values, side="right")
    young = np.searchsorted(np.sort(ages), values, side="left")
    hazard = met / np.maximum(shown - young, met)
    # Share of labels with a delay of at most each value: what is left of 1 after all longer ones.
    within = np.append(np.cumprod((1.0 - hazard)[:0:-1])[::-1], 1.0)
    return int(values[np.searchsorted(within, quantile - _ROUNDING)])
