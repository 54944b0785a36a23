"""Runtimes of no library, that take what time a test says, and fail when it says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skewless.infra.models.runtimes.port import Matrix, Scores
from tests.worlds.clock import SecondsClock

Seconds = Callable[[int], float]


class StandIn:
    """A runtime whose margins are the sums of the rows, and whose scores are twice that.

    Args:
        off: what is added to each margin.
        seconds: of a call by its rows; given to a clock if there is one.

    Attributes:
        error: what the next calls raise.
        asked: rows of each call of ``score``.
        closed: how often it was closed.
    """

    n_features = 2
    n_outputs = 1

    def __init__(
        self, name: str, *, off: float = 0.0, seconds: Seconds = lambda _: 1.0, clock: SecondsClock | None = None
    ) -> None:
        self.runtime_id = name
        self.error: Exception | None = None
        self.asked: list[int] = []
        self.closed = 0
        self.seconds = seconds
        self._off = off
        self._clock = clock

    def margin(self, matrix: Matrix) -> Scores:
        if self.error is not None:
            raise self.error
        sums: Scores = np.asarray(matrix[:, 0] + matrix[:, 1] + self._off)
        return sums

    def score(self, matrix: Matrix) -> Scores:
        if self._clock is not None:
            self._clock.now += self.seconds(len(matrix))
        self.asked.append(len(matrix))
        return self.margin(matrix) * 2

    def contributions(self, matrix: Matrix) -> Scores:
        return np.zeros((len(matrix), 3))

    def close(self) -> None:
        self.closed += 1
