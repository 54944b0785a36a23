"""The most similar predictions: the nearest vectors by Gower's distance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.contract.plain_record import PlainRecord


@dataclass(frozen=True, kw_only=True)
class DifferentFeature(PlainRecord):
    """A feature in which two predictions differ.

    Args:
        own, other: values; None is missing.
        distance: between 0 and 1.
    """

    feature: str
    own: float | str | None
    other: float | str | None
    distance: float


@dataclass(frozen=True, kw_only=True)
class SimilarPrediction(PlainRecord):
    """A prediction that is compared with another.

    Args:
        decision: the action about it; None: the model does not decide, or the score reaches no threshold.
        distance: between 0 (the same vector) and 1.
        differences: the largest first.
    """

    id: str
    t_us: int
    score: float
    decision: str | None
    distance: float
    differences: list[DifferentFeature]


@dataclass(frozen=True, kw_only=True)
class SimilarPredictions(PlainRecord):
    """The most similar predictions of one version.

    Args:
        decision: of the prediction itself, as in ``SimilarPrediction``.
        compared: number of predictions that were compared: those next to it in time.
        nearest: None: no other prediction was compared.
        other_decision: the nearest with another decision; None: there is none.
    """

    decision: str | None
    compared: int
    nearest: SimilarPrediction | None
    other_decision: SimilarPrediction | None


def gower_distances(
    vector: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
    spreads: Sequence[float],
    categorical: Collection[int],
) -> npt.NDArray[np.float64]:
    """Return the distance of each feature of a vector to those of other vectors, between 0 and 1.

    Args:
        vector: shape ``(k,)``; NaN is missing.
        others: shape ``(n, k)``.
        spreads: of each feature, its highest minus its lowest value in training; 0: unknown, so that only equality
            counts.
        categorical: indices of features with codes.

    Returns:
        Shape ``(n, k)``.

    >>> gower_distances(np.array([1.0, 2.0, np.nan]), np.array([[3.0, 5.0, np.nan]]), [4.0, 0.0, 1.0], [1]).tolist()
    [[0.5, 1.0, 0.0]]
    """
    both_missing = np.isnan(vector) & np.isnan(others)
    one_missing = np.isnan(vector) != np.isnan(others)
    scale = np.array([0.0 if i in categorical else spread for i, spread in enumerate(spreads)])
    with np.errstate(invalid="ignore", over="ignore"):
        shares = np.minimum(np.abs(others - vector) / np.where(scale > 0, scale, 1.0), 1.0)
    different = np.where(scale > 0, shares, (others != vector).astype(np.float64))
    # Infinity minus itself is not a number.
    different = np.where(others == vector, 0.0, different)
    return np.asarray(np.where(both_missing, 0.0, np.where(one_missing, 1.0, different)), dtype=np.float64)


def spreads_of(profile: Mapping[str, Mapping[str, float | None]], labels: Sequence[str]) -> list[float]:
    """Return the range of each feature in the training data; 0: unknown.

    Args:
        profile: of the package, by feature.
        labels: the features.
    """
    spreads = []
    for label in labels:
        low, high = (profile.get(label, {}).get(side) for side in ("min", "max"))
        spreads.append(high - low if low is not None and high is not None else 0.0)
    return spreads
