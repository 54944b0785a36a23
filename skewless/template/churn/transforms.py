"""Features that are computed for each request. This module imports numpy only: model packages contain its source."""

import numpy as np


def value(inputs: dict[str, object]) -> dict[str, object]:
    """Return the fee for each hour of use; an hour is added, so that nobody divides by zero."""
    hours = np.asarray(inputs["hours_7d"], dtype=np.float64)
    fee = np.asarray(inputs["monthly_fee"], dtype=np.float64)
    with np.errstate(all="ignore"):
        outputs = {"fee_per_hour": fee / (hours + 1.0)}
    if isinstance(inputs["hours_7d"], list):  # Feast's own tools pass lists
        return {name: column.tolist() for name, column in outputs.items()}
    return {**outputs}
