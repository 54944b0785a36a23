"""Request-time features. This module imports only numpy, because the model package contains its source."""

import numpy as np
import numpy.typing as npt


def payment_time(inputs: dict[str, object]) -> dict[str, object]:
    """Return the hour of the day (UTC) of a payment, and its amount against the card's mean.

    Each result depends on its own row alone. Times are int64 microseconds; Feast's own tools pass
    lists; the function then returns lists.
    """
    paid_at = _microseconds(inputs["paid_at"])
    amount = np.asarray(inputs["amount"], dtype=np.float64)
    mean = np.asarray(inputs["mean_amount_7d"], dtype=np.float64)
    with np.errstate(all="ignore"):
        outputs = {"hour": (paid_at // 3_600_000_000 % 24).astype(np.float64), "amount_ratio": amount / mean}
    if isinstance(inputs["amount"], list):
        return {name: column.tolist() for name, column in outputs.items()}
    return {**outputs}


def _microseconds(times: object) -> npt.NDArray[np.int64]:
    # Feast's own tools pass times with the zone UTC, which numpy does not accept.
    if isinstance(times, list):
        times = [item.replace(tzinfo=None) if hasattr(item, "tzinfo") else item for item in times]
    return np.asarray(times, dtype="datetime64[us]").astype(np.int64)
