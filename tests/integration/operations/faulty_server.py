"""``skewless serve`` in which version 000002 gets a fault as soon as a file says which.

Run as a program: ``faulty_server.py REPO``; the file is ``REPO/fault``: ``fails``, ``slow`` or ``shifts``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skewless.serving.models.loaded_models
from skewless.cli import main
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores
from tests.worlds.rollouts import NEW

_SLOW_S = 0.05


class FaultyRuntime:
    """A runtime that does what the file says; everything else is the real one's."""

    def __init__(self, real: Runtime, fault: Path) -> None:
        self._real = real
        self._fault = fault

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the runtime
        return getattr(self._real, name)

    def score(self, matrix: Matrix) -> Scores:
        fault = self._fault.read_text() if self._fault.exists() else ""
        if fault == "fails":
            raise ZeroDivisionError
        if fault == "slow":
            time.sleep(_SLOW_S)
        scores = self._real.score(matrix)
        return scores**0.25 if fault == "shifts" else scores


def _faulty(load: Callable[..., ServedModel], fault: Path) -> Callable[..., ServedModel]:
    def faulty(*args: Any, **options: Any) -> ServedModel:  # noqa: ANN401 - passed on unchanged
        model = load(*args, **options)
        version = args[2]
        if version == NEW:
            # Not a copy: the runtime is closed with the model that it was opened for.
            object.__setattr__(model, "runtime", FaultyRuntime(model.runtime, fault))
        return model

    return faulty


if __name__ == "__main__":
    repo = Path(sys.argv[1])
    loader: Any = skewless.serving.models.loaded_models
    loader.load_model = _faulty(loader.load_model, repo / "fault")
    sys.argv = ["skewless", "serve", "--repo", str(repo), "--json"]
    main()
