"""``skewless`` whose library takes far too long for many rows, so that a second runtime gets them.

Run as a program, with the arguments of ``skewless``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import skewless.infra.packages.served_model
from skewless.cli import main
from skewless.infra.runtimes.port import Matrix, Runtime, Scores
from skewless.infra.runtimes.shared import RuntimeMember

FEW = 8
_SLOW_S = 0.05
_REST_S = 0.1


class SlowBatches:
    """A runtime that takes its time for many rows; everything else is the real one's."""

    def __init__(self, real: Runtime) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the runtime
        return getattr(self._real, name)

    def score(self, matrix: Matrix) -> Scores:
        if len(matrix) > FEW:
            time.sleep(_SLOW_S)
        return self._real.score(matrix)


def _plant() -> None:
    subject: Any = skewless.infra.packages.served_model
    real = subject.open_runtime

    def slow(algorithm: str, path: Path) -> SlowBatches:
        return SlowBatches(real(algorithm, path))

    subject.open_runtime = slow
    RuntimeMember.rest_s = _REST_S


if __name__ == "__main__":
    _plant()
    main()
