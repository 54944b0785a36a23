"""What answered logged predictions: one version of a model, as it was loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The columns of the log that are the same for all predictions of a loaded model.

    One object serves all records of the model: the log gathers records by the object, not by what it says.

    Args:
        tolerance: accepted difference of the runtime's scores; 0: bit-equal.
        missing: the policy for a store that does not answer.
        views: name and hash of each view, in the order of the plan.
    """

    model: str
    version: str
    runtime_id: str
    tolerance: float
    plan_hash: str
    transform_hashes: tuple[str, ...]
    missing: str
    views: tuple[tuple[str, str], ...]
