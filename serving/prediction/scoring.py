"""Scoring of vectors: on the event loop if the call is short, otherwise in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.platform.host.priority import lower_priority
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.scored_batch import EXTRAS, Extra

Scores = npt.NDArray[np.float64]
_Key = tuple[str, bytes]
_QUICK_S = 10e-3  # longest time for which scoring may block the event loop
_QUICK_IN_BATCH_S = 1e-3  # the same where nothing but large batches waits, and threads could score them
_MAX_RISE = 1.1  # one slow call may be the machine's fault: the estimate rises only after many


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


class Scoring:
    """Score with any model; calls that would block the event loop run in threads of low priority.

    Runtimes release the GIL while they score.

    Args:
        cache: None: every vector is scored.
        threads: number of threads; several are for batch prediction.

    Attributes:
        pool: the threads.
    """

    def __init__(self, cache: PredictionCache | None = None, threads: int = 1) -> None:
        self._cache = cache
        self._quick_s = _QUICK_S if threads == 1 else _QUICK_IN_BATCH_S
        self.pool = ThreadPoolExecutor(threads, "scoring", initializer=lower_priority)

    def is_quick(self, model: ServedModel, n: int) -> bool:
        """Return whether scoring n rows is expected to be short enough for the event loop."""
        return model.row_time.seconds * n <= self._quick_s

    def score(self, model: ServedModel, matrix: Matrix) -> Scores:
        """Return the scores, computed on the calling thread."""
        return (
            self._score_timed(model, matrix)
            if self._cache is None
            else self._cache.score(model, matrix, self._score_timed)
        )

    async def score_in_thread(
        self, model: ServedModel, matrix: Matrix, extras: Sequence[str] = ()
    ) -> tuple[Scores, dict[str, Extra]]:
        """Return scores and further results, see ``EXTRAS``, from a thread."""

        def work() -> tuple[Scores, dict[str, Extra]]:
            # Not through the cache, which is not made for several threads.
            scores = self._score_timed(model, matrix)
            return scores, {name: EXTRAS[name](model.runtime, matrix) for name in extras}

        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    def _score_timed(self, model: ServedModel, matrix: Matrix) -> Scores:
        start_s = time.perf_counter()
        scores = model.runtime.score(matrix)
        row_s = (time.perf_counter() - start_s) / max(len(matrix), 1)
        row_time = model.row_time
        row_time.seconds = row_s if row_time.seconds < 0.0 else min(row_s, row_time.seconds * _MAX_RISE)
        return scores

    def close(self) -> None:
        """Stop the thread."""
        self.pool.shutdown()
