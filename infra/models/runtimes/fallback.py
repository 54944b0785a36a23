"""Scores with a faster runtime than the library's own, and with the library's own where that fails."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from skewless.contract.errors import RequestError
from skewless.infra.models.runtimes.port import Leaves, Matrix, Runtime, Scores, find_leaves
from skewless.infra.platform.telemetry.logger import EventLogger

_MAX_FAILURES = 3  # after this many failures in a row a runtime is not used until the model is loaded again
_log = EventLogger()


class FallbackRuntime:
    """A Runtime of two; see Runtime for the contract. Margins, contributions and leaves are the library's.

    Args:
        chosen: the certified runtime that scores.
        own: the library's own runtime, which scores a batch on which the other fails, and while that rests.
        clock: returns seconds, of any origin.

    Attributes:
        failures: number of batches on which the chosen runtime failed.
        rest_s: seconds for which it is not used after a failure.
    """

    rest_s = 30.0

    def __init__(self, chosen: Runtime, own: Runtime, clock: Callable[[], float] = time.monotonic) -> None:
        self.chosen, self.own = chosen, own
        # Both, because the log names the runtime once for each load.
        self.runtime_id = f"{chosen.runtime_id}|{own.runtime_id}"
        self.n_features, self.n_outputs = own.n_features, own.n_outputs
        self.failures = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._consecutive_failures = 0
        self._usable_at = -math.inf

    @property
    def is_ready(self) -> bool:
        """Return whether the chosen runtime may be used now."""
        return self._clock() >= self._usable_at

    def margin(self, matrix: Matrix) -> Scores:
        """Return the library's margins."""
        return self.own.margin(matrix)

    def score(self, matrix: Matrix) -> Scores:
        """Return the scores of the chosen runtime; of the library's own if that fails."""
        if self.is_ready:
            try:
                scores = self.chosen.score(matrix)
            except RequestError:  # the matrix is invalid for every runtime
                raise
            except Exception as error:  # noqa: BLE001 - out of memory, device lost: the library scores the request
                self._suspend(error)
            else:
                if self._consecutive_failures:
                    self._recover()
                return scores
        return self.own.score(matrix)

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the library's contributions."""
        return self.own.contributions(matrix)

    def leaves(self, matrix: Matrix) -> Leaves:
        """Return the library's leaves."""
        return find_leaves(self.own, matrix)

    def close(self) -> None:
        """Free both runtimes."""
        self.chosen.close()
        self.own.close()

    def _suspend(self, error: Exception) -> None:
        with self._lock:
            self.failures += 1
            # If several calls fail at once, only the first suspends the runtime.
            if not self.is_ready:
                return
            self._consecutive_failures += 1
            is_last = self._consecutive_failures >= _MAX_FAILURES
            self._usable_at = math.inf if is_last else self._clock() + self.rest_s
            if is_last or self._consecutive_failures == 1:
                until = "the model is loaded again" if is_last else f"{self.rest_s:g} s are over"
                _log.error("runtime_failed", runtime=self.chosen.runtime_id, error=str(error), not_used_until=until)

    def _recover(self) -> None:
        with self._lock:
            # A call that began before the failure says nothing about the runtime's state now.
            if self._consecutive_failures and self.is_ready:
                self._consecutive_failures = 0
                _log.info("runtime_recovered", runtime=self.chosen.runtime_id)
