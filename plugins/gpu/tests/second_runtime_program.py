"""``skewless`` whose library is slow, so that a second runtime is chosen.

Run as a program, with the arguments of ``skewless``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import skewless.infra.models.packages.served_model
from skewless.cli import main
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores

_SLOW_S = 1.0


class SlowLibrary:
    """A runtime that takes its time; everything else is the real one's."""

    def __init__(self, real: Runtime) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the runtime
        return getattr(self._real, name)

    def score(self, matrix: Matrix) -> Scores:
        time.sleep(_SLOW_S)
        return self._real.score(matrix)


def _plant() -> None:
    subject: Any = skewless.infra.models.packages.served_model
    real = subject.open_runtime

    def slow(algorithm: str, path: Path) -> SlowLibrary:
        return SlowLibrary(real(algorithm, path))

    subject.open_runtime = slow


if __name__ == "__main__":
    _plant()
    main()
