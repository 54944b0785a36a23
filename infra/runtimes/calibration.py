"""Measures the speed of a runtime at load, to choose the runtime of a batch by its size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skewless.infra.runtimes.port import Matrix, Runtime

SIZES = (1, 8, 64, 512, 4_096)
_MAX_CALLS = 5
_MAX_SIZE_SECONDS = 0.1  # after this time a size is not measured again
_MAX_CALL_SECONDS = 0.25  # a size that is expected to take longer is not measured
_MIN_GAIN = 1.1  # a second runtime must be faster by this factor, so that noise does not choose it


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
    fastest = [_fastest(calibrations, index) for index in range(len(SIZES))]
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


def _fastest(calibrations: Sequence[Calibration], at: int) -> int:
    costs = [each.seconds[at] * (1.0 if index == 0 else _MIN_GAIN) for index, each in enumerate(calibrations)]
    return int(np.argmin(costs))


def _crossing(first: Calibration, second: Calibration, at: int) -> int:
    """Return the smallest number of rows between two sizes at which the second runtime is as fast as the first."""
    low, high = SIZES[at - 1], SIZES[at]
    behind = second.seconds[at - 1] - first.seconds[at - 1]
    ahead = first.seconds[at] - second.seconds[at]
    # Differences within noise counted as equal at either end, so the lines may cross outside of the interval.
    share = min(1.0, behind / (behind + ahead)) if behind > 0 and behind + ahead > 0 else float(behind > 0)
    return low + max(1, int(np.ceil(share * (high - low))))
