"""A runtime that stands in for real ones."""

from __future__ import annotations

import numpy as np

from skewless.infra.models.runtimes.port import Matrix, Scores


class Zeros:
    """A runtime that scores everything zero, or fails."""

    n_features = 2
    n_outputs = 1

    def __init__(self, name: str) -> None:
        self.runtime_id = name
        self.fails = False

    def margin(self, matrix: Matrix) -> Scores:
        if self.fails:
            raise MemoryError
        return np.zeros(len(matrix))

    score = margin

    def contributions(self, matrix: Matrix) -> Scores:
        return np.zeros((len(matrix), 3))

    def close(self) -> None:
        pass
