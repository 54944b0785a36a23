"""What answered logged predictions: one version of a model, as it was loaded."""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.traffic import Role


@dataclass(frozen=True, kw_only=True)
class LoadColumns:
    """The columns of the log that are the same for all predictions of a loaded model.

    One object serves all records of the model in one role: the log gathers records by the object, not by what it says.

    Args:
        tolerance: accepted difference of the runtime's scores; 0: bit-equal.
        missing: the policy for a store that does not answer.
        views: name and hash of each view, in the order of the plan.
        role: in which it answered, or was scored besides.
        policy: number of the traffic policy that it had the role under; None: none decided.
    """

    model: str
    version: str
    runtime_id: str
    tolerance: float
    plan_hash: str
    transform_hashes: tuple[str, ...]
    missing: str
    views: tuple[tuple[str, str], ...]
    role: Role = "champion"
    policy: int | None = None
