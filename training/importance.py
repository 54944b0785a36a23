"""How much each feature matters: to the trees by gain and splits, to the quality by what its loss costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.infra.runtimes.port import Matrix, Scores
from skewless.training.trainers.port import TrainedModel

Measure = Callable[[Scores], float | None]
"""The gate's metric of scores of the rows that were given."""

ROWS = 2_000


def importance(model: TrainedModel, matrix: Matrix, metric: str, measure: Measure, seed: int) -> dict[str, Any]:
    """Return per kind of importance a number per feature, in the order of the columns.

    ``gain`` is the sum over a feature's splits, ``splits`` their number. ``permutation`` is how much worse the
    metric gets on rows that the model never saw once the feature's values change places between rows (Breiman,
    2001): 0 or less is a feature that does not help. It is left out where the metric does not exist.

    Args:
        model: names its features in the order of the columns.
        matrix: ``(n, n_features)`` float64, of test rows.
        metric: whose loss counts.
        measure: the metric of scores of these rows.
        seed: of the places.
    """
    found: dict[str, Any] = {"gain": dict(model.importance)}
    if model.splits:
        found["splits"] = dict(model.splits)
    permuted = _permutation(model, matrix, measure, seed)
    if permuted is None:
        return found
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    return found | {"permutation": {name: sign * value for name, value in permuted.items()}, "metric": metric}


def _permutation(model: TrainedModel, matrix: Matrix, measure: Measure, seed: int) -> Mapping[str, float] | None:
    """Return by how much the metric falls without each feature; None where it does not exist."""
    whole = measure(model.score(matrix))
    if whole is None:
        return None
    rng = np.random.default_rng(seed)
    lost: dict[str, float] = {}
    for index, name in enumerate(model.importance):
        changed = matrix.copy()
        changed[:, index] = rng.permutation(changed[:, index])
        without = measure(model.score(changed))
        if without is None:
            return None
        lost[name] = whole - without
    return lost
