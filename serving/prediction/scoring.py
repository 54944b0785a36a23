"""Scoring of vectors: on the event loop if the call is short, otherwise in a thread."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from skewless.contract.vector import Matrix
from skewless.infra.host.priority import lower_priority
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.runtimes.shared import SharedRuntime
from skewless.serving.prediction.prediction_cache import PredictionCache

Values = npt.NDArray[np.float64]

_QUICK_S = 10e-3  # longest time for which scoring may block the event loop
_MAX_RISE = 1.1  # one slow call may be the machine's fault: the estimate rises only after many


class Scoring:
    """Score with any model; calls that would block the event loop run in one thread of low priority.

    Runtimes release the GIL while they score.

    Args:
        cache: None: every vector is scored.
    """

    def __init__(self, cache: PredictionCache | None = None) -> None:
        self._cache = cache
        self._row_s: WeakKeyDictionary[ServedModel, float] = WeakKeyDictionary()
        self._pool = ThreadPoolExecutor(1, "scoring", initializer=lower_priority)

    def is_quick(self, model: ServedModel, n: int) -> bool:
        """Return whether scoring n rows is expected to be short enough for the event loop."""
        runtime = model.runtime
        if isinstance(runtime, SharedRuntime):  # times of one runtime say nothing about another
            # A device, or the process that uses it, may hang until its timeout: never on the event loop.
            return runtime.is_own(n) and runtime.expected_s(n) <= _QUICK_S
        return self._row_s.get(model, 0.0) * n <= _QUICK_S

    def score(self, model: ServedModel, matrix: Matrix) -> Values:
        """Return the scores, computed on the calling thread."""
        return (
            self._score_timed(model, matrix)
            if self._cache is None
            else self._cache.score(model, matrix, self._score_timed)
        )

    async def score_in_thread(
        self, model: ServedModel, matrix: Matrix, *, contributions: bool
    ) -> tuple[Values, Values | None]:
        """Return scores, and contributions if requested, from a thread."""

        def work() -> tuple[Values, Values | None]:
            # Not through the cache, which is not made for several threads.
            scores = self._score_timed(model, matrix)
            return scores, model.runtime.contributions(matrix) if contributions else None

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _score_timed(self, model: ServedModel, matrix: Matrix) -> Values:
        start_s = time.perf_counter()
        scores = model.runtime.score(matrix)
        row_s = (time.perf_counter() - start_s) / max(len(matrix), 1)
        estimate_s = self._row_s.get(model, row_s)
        self._row_s[model] = min(row_s, estimate_s * _MAX_RISE)
        return scores

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown()
