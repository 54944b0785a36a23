"""Request-time features. This module imports numpy only: its source travels in the model package."""

import numpy as np


def payment_time(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the hour of the day of a payment, and its amount against the card's mean."""
    paid_at = np.asarray(inputs["paid_at"], dtype=np.int64)
    amount = np.asarray(inputs["amount"], dtype=np.float64)
    mean = np.asarray(inputs["mean_amount_7d"], dtype=np.float64)
    with np.errstate(all="ignore"):
        ratio = amount / mean
    return {"hour": (paid_at // 3_600_000_000 % 24).astype(np.float64), "amount_ratio": ratio}
