"""Cache of scores by vector; exact, because a model's score depends on its vector alone."""

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
    """Cache the scores of recent vectors, by package digest and the vector's bits.

    Args:
        entries: maximum number of scores; the oldest is evicted first.
    """

    def __init__(self, entries: int, metrics: Metrics) -> None:
        self._max_entries = entries
        self._scores: dict[_Key, Scores] = {}
        self._hits, self._misses = metrics.hits("prediction"), metrics.misses("prediction")

    def score(self, model: ServedModel, matrix: Matrix, score: Callable[[ServedModel, Matrix], Scores]) -> Scores:
        """Return scores, calling ``score`` only for vectors that are not cached."""
        digest = model.package.digest
        # By bits: -0.0 and 0.0, or two kinds of NaN, are different keys, which at worst is a miss.
        keys: list[_Key] = [(digest, row.tobytes()) for row in matrix]
        missing = [i for i, key in enumerate(keys) if key not in self._scores]
        self._hits.inc(len(keys) - len(missing))
        self._misses.inc(len(missing))
        if len(missing) == len(keys):
            scores = score(model, matrix)
            self._store(keys, scores)
            return scores
        cached = {key: self._scores[key] for key in keys if key in self._scores}
        if missing:
            new_scores = score(model, np.ascontiguousarray(matrix[missing]))
            cached |= {keys[i]: score_row for i, score_row in zip(missing, new_scores, strict=True)}
            self._store([keys[i] for i in missing], new_scores)
        return np.array([cached[key] for key in keys], dtype=np.float64)

    def _store(self, keys: list[_Key], scores: Scores) -> None:
        # A copy: the scores themselves go to the caller.
        self._scores.update(zip(keys, scores.copy(), strict=True))
        while len(self._scores) > self._max_entries:
            del self._scores[next(iter(self._scores))]
