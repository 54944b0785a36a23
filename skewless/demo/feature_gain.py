"""What more features are worth: two models on the same rows, with the spread that chance alone would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.contract.status import Int64Array
from skewless.infra.runtimes.port import Vector
from skewless.validation.evaluation.metrics import auc

_DRAWS = 400
_SEED = 7


@dataclass(frozen=True, kw_only=True)
class LabelledScores:
    """What a model said of some rows, beside their labels; arrays of one length.

    Args:
        groups: which rows are of one query, of a ranking model.
    """

    labels: Vector
    scores: Vector
    groups: Int64Array | None = None


@dataclass(frozen=True, kw_only=True)
class AucGain:
    """The AUC of one model, of a better one, and their difference.

    Args:
        low, high: between these lie 95 % of the differences, when the rows are drawn again.
    """

    before: float
    after: float
    low: float
    high: float

    def line(self) -> str:
        """Return the gain for people.

        >>> AucGain(before=0.69, after=0.74, low=0.04, high=0.06).line()
        'AUC 0.690 -> 0.740, gain 0.050 [0.040, 0.060]'
        """
        change = f"gain {self.after - self.before:.3f} [{self.low:.3f}, {self.high:.3f}]"
        return f"AUC {self.before:.3f} -> {self.after:.3f}, {change}"


def auc_gain(before: LabelledScores, after: LabelledScores, draws: int = _DRAWS) -> AucGain | None:
    """Return what the second model gains on the first, on the same rows; None where that cannot be said.

    The interval is that of the bootstrap: both models are measured on each drawing of rows, with replacement.
    """
    if not np.array_equal(before.labels, after.labels):
        return None
    first, second = auc(before.labels, before.scores), auc(after.labels, after.scores)
    if first is None or second is None:
        return None
    low, high = np.quantile(_drawn(before, after, draws), (0.025, 0.975))
    return AucGain(before=first, after=second, low=float(low), high=float(high))


def pairs(models: Sequence[ModelSpec], plan: FeaturePlan) -> Iterator[tuple[str, str]]:
    """Yield the names of binary models that differ in their views alone: fewer views, then more."""
    views = {spec.name: {view.name for view in plan.select_service(spec.service).all_views} for spec in models}
    for less in models:
        for more in models:
            alike = replace(more, name=less.name, service=less.service, retrain=less.retrain) == less
            if alike and less.task == "binary" and views[less.name] < views[more.name]:
                yield less.name, more.name


def gains(models: Sequence[ModelSpec], plan: FeaturePlan, scored: Mapping[str, LabelledScores]) -> dict[str, AucGain]:
    """Return, by the names of both models, what more views gain on the rows that were scored."""
    found = {f"{less} -> {more}": auc_gain(scored[less], scored[more]) for less, more in pairs(models, plan)}
    return {names: gain for names, gain in found.items() if gain is not None}


def _drawn(before: LabelledScores, after: LabelledScores, draws: int) -> npt.NDArray[np.float64]:
    chance = np.random.default_rng(_SEED)
    n = len(before.labels)
    # Only the order of scores counts for the AUC, and ranks sort faster.
    first, second = _ranks(before.scores), _ranks(after.scores)
    differences = np.zeros(draws)
    for i in range(draws):
        rows = chance.integers(0, n, n)
        pair = auc(before.labels[rows], first[rows]), auc(before.labels[rows], second[rows])
        differences[i] = (pair[1] or 0.0) - (pair[0] or 0.0)
    return differences


def _ranks(scores: Vector) -> Vector:
    return np.asarray(np.unique(scores, return_inverse=True)[1], dtype=np.float64)
