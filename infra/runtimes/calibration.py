"""How long a runtime takes, measured at load: from it follows which runtime a batch goes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skewless.infra.runtimes.port import Matrix, Runtime

SIZES = (1, 8, 64, 512, 4_096)
_TRIES = 5
_SIZE_SECONDS = 0.1  # after which a size is not tried once more
_CALL_SECONDS = 0.25  # a call that is expected to take longer is not made
_GAIN = 1.1  # a second runtime must be faster by this, so that noise does not choose it


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Seconds of one call.

    Args:
        seconds: at each of ``SIZES`` rows, the least of some calls: what else the machine did is not the runtime's.
        measured: how many of them were measured; the others follow from the last, row by row.
    """

    seconds: tuple[float, ...]
    measured: int

    def expected_s(self, rows: int) -> float:
        """Return the seconds of a call for so many rows: between sizes on a line, beyond the last in proportion."""
        if rows > SIZES[-1]:
            return self.seconds[-1] * rows / SIZES[-1]
        return float(np.interp(rows, SIZES, self.seconds))

    def beats(self, other: Calibration, size: int) -> bool:
        """Say whether it is faster than another at one of ``SIZES``, by more than noise."""
        at = SIZES.index(size)
        return self.seconds[at] * _GAIN < other.seconds[at]


@dataclass(frozen=True, kw_only=True)
class Step:
    """From how many rows on a runtime is used.

    Args:
        rows: the fewest.
        at: which runtime.
    """

    rows: int
    at: int


def calibrate(runtime: Runtime, rows: Matrix, clock: Callable[[], float] = time.perf_counter) -> Calibration:
    """Measure a runtime, at most for about a second.

    Args:
        rows: what is scored, repeated as often as a size needs.
    """
    seconds: list[float] = []
    for size in SIZES:
        expected = seconds[-1] * size / SIZES[len(seconds) - 1] if seconds else 0.0
        if expected > _CALL_SECONDS:
            break
        matrix = np.ascontiguousarray(np.resize(rows, (size, rows.shape[1])))
        seconds.append(_least_s(runtime, matrix, clock))
    measured = len(seconds)
    seconds += [seconds[-1] * size / SIZES[measured - 1] for size in SIZES[measured:]]
    return Calibration(seconds=tuple(seconds), measured=measured)


def steps(calibrations: Sequence[Calibration]) -> tuple[Step, ...]:
    """Return which runtime a batch goes to, from one row on; the first is the one that others must beat.

    Where another is faster at the next size, the step is where their lines cross.
    """
    best = [_fastest(calibrations, at) for at in range(len(SIZES))]
    found = [Step(rows=1, at=best[0])]
    for at in range(1, len(SIZES)):
        if best[at] != best[at - 1]:
            rows = _crossing(calibrations[best[at - 1]], calibrations[best[at]], at)
            found.append(Step(rows=rows, at=best[at]))
    return tuple(found)


def _least_s(runtime: Runtime, matrix: Matrix, clock: Callable[[], float]) -> float:
    runtime.score(matrix)
    began = clock()
    taken: list[float] = []
    while not taken or (len(taken) < _TRIES and clock() - began < _SIZE_SECONDS):
        start = clock()
        runtime.score(matrix)
        taken.append(clock() - start)
    return min(taken)


def _fastest(calibrations: Sequence[Calibration], at: int) -> int:
    costs = [each.seconds[at] * (1.0 if index == 0 else _GAIN) for index, each in enumerate(calibrations)]
    return int(np.argmin(costs))


def _crossing(before: Calibration, after: Calibration, at: int) -> int:
    """Return the fewest rows, beyond the size before, at which the second is as fast as the first."""
    low, high = SIZES[at - 1], SIZES[at]
    behind = after.seconds[at - 1] - before.seconds[at - 1]
    ahead = before.seconds[at] - after.seconds[at]
    # What is within noise at either end was judged equal there: the lines may cross outside.
    share = min(1.0, behind / (behind + ahead)) if behind > 0 and behind + ahead > 0 else float(behind > 0)
    return low + max(1, int(np.ceil(share * (high - low))))
