"""Scores one model with several runtimes: each batch goes to the fastest; if it fails, the library's own scores it.

The speed of a runtime is measured at load, so that the size of a batch chooses its runtime.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skewless.contract.errors import RequestError
from skewless.infra.runtimes.port import Leaves, Matrix, Runtime, Scores, find_leaves
from skewless.infra.telemetry.logger import EventLogger

SIZES = (1, 8, 64, 512, 4_096)
_MAX_CALLS = 5
_MAX_SIZE_SECONDS = 0.1  # after this time a size is not measured again
_MAX_CALL_SECONDS = 0.25  # a size that is expected to take longer is not measured
_MIN_GAIN = 1.1  # a second runtime must be faster by this factor, so that noise does not choose it
_MAX_FAILURES = 3  # after this many consecutive failures a runtime is not used until the model is loaded again
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The seconds that a call takes, by size.

    Args:
        seconds: at each of ``SIZES`` rows, the minimum of some calls, because other load only adds time.
        measured: number of measured sizes; larger sizes are extrapolated in proportion.
    """

    seconds: tuple[float, ...]
    measured: int

    def expected_s(self, rows: int) -> float:
        """Return the expected seconds of a call: interpolated between sizes, in proportion beyond the last size."""
        if rows > SIZES[-1]:
            return self.seconds[-1] * rows / SIZES[-1]
        return float(np.interp(rows, SIZES, self.seconds))

    def is_faster(self, other: Calibration, size: int) -> bool:
        """Return whether it is faster than another at one of ``SIZES``, by more than noise."""
        index = SIZES.index(size)
        return self.seconds[index] * _MIN_GAIN < other.seconds[index]


@dataclass(frozen=True, kw_only=True)
class Step:
    """The smallest batch for which a runtime is used.

    Args:
        rows: rows of the batch.
        at: index of the runtime.
    """

    rows: int
    at: int


def calibrate(runtime: Runtime, rows: Matrix, clock: Callable[[], float] = time.perf_counter) -> Calibration:
    """Measure a runtime, for about a second at most.

    Args:
        rows: rows to score; they are repeated to fill a size.
    """
    seconds: list[float] = []
    for size in SIZES:
        expected = seconds[-1] * size / SIZES[len(seconds) - 1] if seconds else 0.0
        if expected > _MAX_CALL_SECONDS:
            break
        matrix = np.ascontiguousarray(np.resize(rows, (size, rows.shape[1])))
        seconds.append(_measure(runtime, matrix, clock))
    measured = len(seconds)
    seconds += [seconds[-1] * size / SIZES[measured - 1] for size in SIZES[measured:]]
    return Calibration(seconds=tuple(seconds), measured=measured)


def choose_steps(calibrations: Sequence[Calibration]) -> tuple[Step, ...]:
    """Return the runtime for each batch size, from one row up; another runtime must be clearly faster than the first.

    If another runtime is faster at the next size, the step is at the crossing of their interpolated times.
    """
    gains = [1.0, *[_MIN_GAIN] * (len(calibrations) - 1)]
    costs = np.array([np.multiply(each.seconds, gain) for each, gain in zip(calibrations, gains, strict=True)])
    fastest = costs.argmin(axis=0).tolist()
    result = [Step(rows=1, at=fastest[0])]
    for index in range(1, len(SIZES)):
        if fastest[index] != fastest[index - 1]:
            rows = _crossing(calibrations[fastest[index - 1]], calibrations[fastest[index]], index)
            result.append(Step(rows=rows, at=fastest[index]))
    return tuple(result)


def _measure(runtime: Runtime, matrix: Matrix, clock: Callable[[], float]) -> float:
    runtime.score(matrix)  # warm up: the first call allocates buffers
    began = clock()
    durations: list[float] = []
    while not durations or (len(durations) < _MAX_CALLS and clock() - began < _MAX_SIZE_SECONDS):
        start = clock()
        runtime.score(matrix)
        durations.append(clock() - start)
    return min(durations)


def _crossing(first: Calibration, second: Calibration, at: int) -> int:
    """Return the smallest number of rows between two sizes at which the second runtime is as fast as the first."""
    low, high = SIZES[at - 1], SIZES[at]
    behind = second.seconds[at - 1] - first.seconds[at - 1]
    ahead = first.seconds[at] - second.seconds[at]
    # Differences within noise counted as equal at either end, so the lines may cross outside of the interval.
    share = min(1.0, behind / (behind + ahead)) if behind > 0 and behind + ahead > 0 else float(behind > 0)
    return low + max(1, int(np.ceil(share * (high - low))))


class RuntimeMember:
    """A certified runtime of a model. Several threads may use it at once.

    Args:
        runtime: the runtime.
        calibration: its measured speed.
        reopen: opens and certifies it again, for a runtime that does not recover from a failure; None: it recovers.
        is_inline: its calls cannot hang.
        clock: returns seconds, of any origin.

    Attributes:
        batches: number of batches that it scored.
        rows: number of rows in these batches.
        failures: number of batches that failed and that the library scored instead.
        rest_s: seconds for which it is not used after a failure.
    """

    rest_s = 30.0

    def __init__(
        self,
        runtime: Runtime,
        calibration: Calibration,
        reopen: Callable[[], Runtime] | None = None,
        *,
        is_inline: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runtime = runtime
        self.runtime_id = runtime.runtime_id
        self.calibration = calibration
        self.is_inline = is_inline
        self.batches = self.rows = self.failures = 0
        self._reopen = reopen
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._consecutive_failures = 0
        self._usable_at = -math.inf

    @property
    def is_ready(self) -> bool:
        """Return whether it may be used now."""
        return self._clock() >= self._usable_at

    def score(self, matrix: Matrix) -> Scores:
        """Return its scores."""
        scores = self.runtime.score(matrix)
        with self._lock:
            self.batches += 1
            self.rows += len(matrix)
            # A call that began before the failure says nothing about the runtime's state now.
            if self.is_ready:
                self._consecutive_failures = 0
        return scores

    def try_score(self, matrix: Matrix) -> Scores | None:
        """Return its scores; None: it failed, and is suspended for some time or retired.

        Raises:
            RequestError: the matrix is invalid for every runtime.
        """
        runtime = self.runtime
        try:
            return self.score(matrix)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001 - out of memory, device lost: the library scores the request
            with self._lock:
                self.failures += 1
                # If several calls fail at once, only the first suspends the runtime.
                if runtime is self.runtime and self.is_ready:
                    self._suspend(error)
            return None

    def close(self) -> None:
        """Free the runtime."""
        with self._lock:
            self._closed.set()
            self._usable_at = math.inf
            self.runtime.close()

    def _suspend(self, error: Exception) -> None:
        if self._retire_after_failures(error):
            return
        # Until it is open again; without `reopen` it recovers during a rest.
        self._usable_at = math.inf if self._reopen else self._clock() + self.rest_s
        if self._consecutive_failures == 1:
            self._log_failure(error, f"{self.rest_s:g} s are over")
        if self._reopen is not None:
            threading.Thread(
                target=self._reopen_repeatedly, args=(self._reopen,), name="runtime-reopen", daemon=True
            ).start()

    def _retire_after_failures(self, error: Exception) -> bool:
        """Count a failure; after several in a row, retire the runtime and return True."""
        self._consecutive_failures += 1
        if self._consecutive_failures < _MAX_FAILURES:
            return False
        self._usable_at = math.inf
        self._log_failure(error, "the model is loaded again")
        return True

    def _log_failure(self, error: Exception, until: str) -> None:
        _log.error("runtime_failed", runtime=self.runtime_id, error=str(error), not_used_until=until)

    def _reopen_repeatedly(self, reopen: Callable[[], Runtime]) -> None:
        while not self._closed.wait(self.rest_s):
            self.runtime.close()
            try:
                runtime = reopen()
            except Exception as error:  # noqa: BLE001 - the library scores meanwhile
                with self._lock:
                    if self._retire_after_failures(error):
                        return
                continue
            with self._lock:
                # The model may have been closed while the runtime was opened: then nobody else would close it.
                if self._closed.is_set():
                    runtime.close()
                    return
                self.runtime, self._usable_at = runtime, -math.inf
            _log.info("runtime_recovered", runtime=self.runtime_id)
            return


class SharedRuntime:
    """A Runtime that combines several; see Runtime for the contract.

    Args:
        own: the library's own runtime: it also returns margins, contributions and leaves, and replaces failed runtimes.
        others: the other certified runtimes.
        steps: which of ``(own, *others)`` gets a batch, by its rows.
    """

    def __init__(self, own: RuntimeMember, others: Sequence[RuntimeMember], steps: Sequence[Step]) -> None:
        self.members = (own, *others)
        self.steps = tuple(steps)
        self._own = own
        self._step_rows = [step.rows for step in steps]
        self._step_members = [self.members[step.at] for step in steps]
        runtime_ids = dict.fromkeys(member.runtime_id for member in self._step_members)
        runtime_ids.setdefault(own.runtime_id)
        self.runtime_id = "|".join(runtime_ids)
        self.n_features, self.n_outputs = own.runtime.n_features, own.runtime.n_outputs

    def expected_s(self, rows: int) -> float:
        """Return the expected seconds of a batch."""
        return self._member(rows).calibration.expected_s(rows)

    def is_inline(self, rows: int) -> bool:
        """Return whether the runtime that scores a batch of this size is the library's own, or cannot hang either."""
        member = self._member(rows)
        return member is self._own or member.is_inline

    def margin(self, matrix: Matrix) -> Scores:
        """Return the library's margins."""
        return self._own.runtime.margin(matrix)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions of the fastest runtime for the batch; of the library's own if that fails."""
        member = self._member(len(matrix))
        scores = None if member is self._own else member.try_score(matrix)
        return self._own.score(matrix) if scores is None else scores

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the library's contributions."""
        return self._own.runtime.contributions(matrix)

    def leaves(self, matrix: Matrix) -> Leaves:
        """Return the library's leaves."""
        return find_leaves(self._own.runtime, matrix)

    def close(self) -> None:
        """Free all runtimes."""
        for member in self.members:
            member.close()

    def _member(self, rows: int) -> RuntimeMember:
        member = self._step_members[max(bisect_right(self._step_rows, rows) - 1, 0)]
        return member if member is self._own or member.is_ready else self._own
