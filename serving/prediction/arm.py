"""A version of a model in one role under a traffic policy."""

from __future__ import annotations

from dataclasses import replace

from skewless.contract.traffic import Role
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm_counts import ArmCounts


class Arm:
    """What answers a part of the entities, or is scored besides.

    Args:
        policy: number of the policy.
        shadows: what is scored besides on the rows that this arm answers.

    Attributes:
        origin: what the prediction log says of its predictions.
        counts: what it did under the policy.
    """

    def __init__(
        self, model: ServedModel, role: Role, policy: int, metrics: Metrics, shadows: tuple[Arm, ...] = ()
    ) -> None:
        self.model = model
        self.shadows = shadows
        self.origin = replace(model.origin, role=role, policy=policy)
        self.counts = ArmCounts(metrics, model, role)
        self._same: dict[str, bool] = {}

    def sees_the_same(self, model: ServedModel) -> bool:
        """Say whether it makes the same vectors of the same rows: their plans and vocabularies are equal."""
        known = self._same.get(model.version)
        if known is None:
            known = self._same[model.version] = self.model.package.plan == model.package.plan
        return known
