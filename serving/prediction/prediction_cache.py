"""Scores of vectors that were scored before: exact, since a model's score depends on its vector alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from skewless.contract.vector import Matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.metrics.metrics import Metrics

Scores = npt.NDArray[np.float64]
_Key = tuple[str, bytes]


class PredictionCache:
    """Keeps the scores of the vectors that were asked for last, by package and the vector's bits.

    Args:
        entries: scores kept; what was put first goes first.
    """

    def __init__(self, entries: int, metrics: Metrics) -> None:
        self._most = entries
        self._held: dict[_Key, Scores] = {}
        self._hits, self._misses = metrics.hits("prediction"), metrics.misses("prediction")

    def score(self, model: ServedModel, matrix: Matrix, score: Callable[[ServedModel, Matrix], Scores]) -> Scores:
        """Return what ``score`` returns; it is only called for the vectors that are new."""
        digest = model.package.digest
        keys: list[_Key] = [(digest, row.tobytes()) for row in matrix]
        new = [i for i, key in enumerate(keys) if key not in self._held]
        self._hits.inc(len(keys) - len(new))
        self._misses.inc(len(new))
        if len(new) == len(keys):
            scores = score(model, matrix)
            self._keep(keys, scores)
            return scores
        known = {key: self._held[key] for key in keys if key in self._held}
        if new:
            fresh = score(model, np.ascontiguousarray(matrix[new]))
            known |= {keys[i]: one for i, one in zip(new, fresh, strict=True)}
            self._keep([keys[i] for i in new], fresh)
        return np.array([known[key] for key in keys], dtype=np.float64)

    def _keep(self, keys: list[_Key], scores: Scores) -> None:
        self._held.update(zip(keys, scores.copy(), strict=True))
        while len(self._held) > self._most:
            del self._held[next(iter(self._held))]
