"""One model on several runtimes: each batch goes to the fastest, and the library's own answers where another fails."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import structlog

from skewless.contract.errors import RequestError
from skewless.infra.runtimes.calibration import Calibration, Step
from skewless.infra.runtimes.port import Matrix, Runtime, Scores

_MOST_FAILURES = 3  # in a row, after which a runtime is not tried again until the model is loaded anew
_log = structlog.get_logger()


class RuntimeMember:
    """A certified runtime of a model. May be used from several threads at once.

    Args:
        runtime: what scores.
        calibration: how long it takes.
        reopen: opens and certifies it anew, where a runtime that failed once does not come back by itself.
        clock: seconds, of any origin.

    Attributes:
        batches: how many it answered.
        rows: in how many rows.
        failures: how many batches it failed on, which the library answered.
        rest_s: seconds for which it is not asked once it failed.
    """

    rest_s = 30.0

    def __init__(
        self,
        runtime: Runtime,
        calibration: Calibration,
        reopen: Callable[[], Runtime] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runtime = runtime
        self.runtime_id = runtime.runtime_id
        self.calibration = calibration
        self.batches = self.rows = self.failures = 0
        self._reopen = reopen
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._in_a_row = 0
        self._back_at = -math.inf

    @property
    def is_ready(self) -> bool:
        """Say whether it may be asked."""
        return self._clock() >= self._back_at

    def score(self, matrix: Matrix) -> Scores:
        """Return its scores."""
        scores = self.runtime.score(matrix)
        with self._lock:
            self.batches += 1
            self.rows += len(matrix)
            if self.is_ready:
                self._in_a_row = 0
        return scores

    def try_score(self, matrix: Matrix) -> Scores | None:
        """Return its scores; None: it failed, and is put aside for a while, or for good.

        Raises:
            RequestError: of the matrix, which no runtime would take.
        """
        runtime = self.runtime
        try:
            return self.score(matrix)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001 - out of memory, device lost: no request is lost for it
            with self._lock:
                self.failures += 1
                # Where several calls fail at once, the first is enough.
                if runtime is self.runtime and self.is_ready:
                    self._put_aside(error)
            return None

    def close(self) -> None:
        """Free it."""
        with self._lock:
            self._closed.set()
            self._back_at = math.inf
            self.runtime.close()

    def _put_aside(self, error: Exception) -> None:
        self._in_a_row += 1
        if self._in_a_row >= _MOST_FAILURES:
            self._give_up(error)
            return
        self._back_at = math.inf if self._reopen else self._clock() + self.rest_s
        if self._in_a_row == 1:
            self._tell(error, f"{self.rest_s:g} s are over")
        if self._reopen is not None:
            threading.Thread(target=self._come_back, args=(self._reopen,), name="runtime-reopen", daemon=True).start()

    def _give_up(self, error: Exception) -> None:
        self._back_at = math.inf
        self._tell(error, "the model is loaded again")

    def _tell(self, error: Exception, until: str) -> None:
        _log.error("runtime_failed", runtime=self.runtime_id, error=str(error), not_used_until=until)

    def _come_back(self, reopen: Callable[[], Runtime]) -> None:
        while not self._closed.wait(self.rest_s):
            self.runtime.close()
            try:
                runtime = reopen()
            except Exception as error:  # noqa: BLE001 - the library goes on answering
                self._in_a_row += 1
                if self._in_a_row >= _MOST_FAILURES:
                    self._give_up(error)
                    return
                continue
            self._welcome(runtime)
            return

    def _welcome(self, runtime: Runtime) -> None:
        with self._lock:
            if self._closed.is_set():
                runtime.close()
                return
            self.runtime, self._back_at = runtime, -math.inf
        _log.info("runtime_is_back", runtime=self.runtime_id)


class SharedRuntime:
    """A Runtime made of several; see Runtime for the contract.

    Args:
        own: the library's own: it answers what no other does, margins and contributions too.
        others: certified besides.
        steps: which of ``(own, *others)`` a batch goes to, by its rows.
    """

    def __init__(self, own: RuntimeMember, others: Sequence[RuntimeMember], steps: Sequence[Step]) -> None:
        self.members = (own, *others)
        self.steps = tuple(steps)
        self._own = own
        self._from = [step.rows for step in steps]
        self._of = [self.members[step.at] for step in steps]
        used = dict.fromkeys(member.runtime_id for member in self._of)
        used.setdefault(own.runtime_id)
        self.runtime_id = "|".join(used)
        self.n_features, self.n_outputs = own.runtime.n_features, own.runtime.n_outputs

    def expected_s(self, rows: int) -> float:
        """Return how long so many rows take."""
        return self._member(rows).calibration.expected_s(rows)

    def is_own(self, rows: int) -> bool:
        """Say whether the library itself scores so many rows: others may keep whoever waits for them waiting."""
        return self._member(rows) is self._own

    def margin(self, matrix: Matrix) -> Scores:
        """Return the library's margins."""
        return self._own.runtime.margin(matrix)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions of the fastest runtime for so many rows; of the library's own if that one fails."""
        member = self._member(len(matrix))
        scores = None if member is self._own else member.try_score(matrix)
        return self._own.score(matrix) if scores is None else scores

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the library's contributions."""
        return self._own.runtime.contributions(matrix)

    def close(self) -> None:
        """Free all."""
        for member in self.members:
            member.close()

    def _member(self, rows: int) -> RuntimeMember:
        member = self._of[max(bisect_right(self._from, rows) - 1, 0)]
        return member if member is self._own or member.is_ready else self._own
