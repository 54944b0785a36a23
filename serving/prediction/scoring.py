"""From vectors to scores: at once where that is quick, else beside the event loop."""

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

_QUICK_S = 10e-3  # what other requests wait for at most
_RISE = 1.1  # a slow call may be the machine's doing: only many of them count


class Scoring:
    """Scores with any model; what would hold up other requests goes to one thread of low priority.

    Runtimes let go of the GIL while they work.

    Args:
        cache: None: every vector is scored.
    """

    def __init__(self, cache: PredictionCache | None = None) -> None:
        self._cache = cache
        self._row_s: WeakKeyDictionary[ServedModel, float] = WeakKeyDictionary()
        self._pool = ThreadPoolExecutor(1, "scoring", initializer=lower_priority)

    def is_quick(self, model: ServedModel, n: int) -> bool:
        """Say whether n rows take no longer than others may wait, as far as is known."""
        runtime = model.runtime
        if isinstance(runtime, SharedRuntime):  # what one runtime takes for a row says nothing of another
            # A device, or the process that uses it, may take until it is given up: the loop waits for none.
            return runtime.is_own(n) and runtime.expected_s(n) <= _QUICK_S
        return self._row_s.get(model, 0.0) * n <= _QUICK_S

    def score(self, model: ServedModel, matrix: Matrix) -> Values:
        """Return the scores, now."""
        return self._timed(model, matrix) if self._cache is None else self._cache.score(model, matrix, self._timed)

    async def score_beside(
        self, model: ServedModel, matrix: Matrix, *, contributions: bool
    ) -> tuple[Values, Values | None]:
        """Return scores, and contributions if they are wanted, while the event loop goes on."""

        def work() -> tuple[Values, Values | None]:
            scores = self._timed(model, matrix)
            return scores, model.runtime.contributions(matrix) if contributions else None

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _timed(self, model: ServedModel, matrix: Matrix) -> Values:
        began = time.perf_counter()
        scores = model.runtime.score(matrix)
        row_s = (time.perf_counter() - began) / max(len(matrix), 1)
        known = self._row_s.get(model, row_s)
        self._row_s[model] = min(row_s, known * _RISE)
        return scores

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()
