"""The gain of more features: two models on the same rows, with a bootstrap interval."""

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
    """Scores and labels of some rows; arrays of one length.

    Args:
        groups: number of each row's query, for a ranking model.
    """

    labels: Vector
    scores: Vector
    groups: Int64Array | None = None


@dataclass(frozen=True, kw_only=True)
class AucGain:
    """The AUC of two models, and their difference.

    Args:
        low, high: bounds of 95 % of the differences over bootstrap draws.
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
    """Return the gain of the second model on the same rows; None: the labels differ, or an AUC does not exist.

    The interval is a bootstrap: both models are evaluated on each draw of rows, with replacement.
    """
    if not np.array_equal(before.labels, after.labels):
        return None
    first, second = auc(before.labels, before.scores), auc(after.labels, after.scores)
    if first is None or second is None:
        return None
    low, high = np.quantile(_draw_differences(before, after, draws), (0.025, 0.975))
    return AucGain(before=first, after=second, low=float(low), high=float(high))


def pairs(models: Sequence[ModelSpec], plan: FeaturePlan) -> Iterator[tuple[str, str]]:
    """Yield pairs of binary models that differ only in their views: fewer views first."""
    views = {spec.name: {view.name for view in plan.select_service(spec.service).all_views} for spec in models}
    for less in models:
        for more in models:
            is_pair = replace(more, name=less.name, service=less.service, retrain=less.retrain) == less
            if is_pair and less.task == "binary" and views[less.name] < views[more.name]:
                yield less.name, more.name


def gains(models: Sequence[ModelSpec], plan: FeaturePlan, scored: Mapping[str, LabelledScores]) -> dict[str, AucGain]:
    """Return the gains of more views on scored rows, by the names of both models."""
    by_names = {f"{less} -> {more}": auc_gain(scored[less], scored[more]) for less, more in pairs(models, plan)}
    return {names: gain for names, gain in by_names.items() if gain is not None}


def _draw_differences(before: LabelledScores, after: LabelledScores, draws: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(_SEED)
    n = len(before.labels)
    # The AUC depends only on the order of scores, and ranks sort faster.
    first, second = _ranks(before.scores), _ranks(after.scores)
    differences = np.zeros(draws)
    for i in range(draws):
        rows = rng.integers(0, n, n)
        pair = auc(before.labels[rows], first[rows]), auc(before.labels[rows], second[rows])
        differences[i] = (pair[1] or 0.0) - (pair[0] or 0.0)
    return differences


def _ranks(scores: Vector) -> Vector:
    return np.asarray(np.unique(scores, return_inverse=True)[1], dtype=np.float64)
