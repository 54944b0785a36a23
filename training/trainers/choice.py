"""The trainer of an algorithm."""

from __future__ import annotations

import os
from collections.abc import Callable

from skewless.contract.errors import DefinitionError
from skewless.contract.spec import ALGORITHMS, Algorithm
from skewless.infra.host.plugins import find_plugin
from skewless.training.trainers.port import Trainer


def trainer_for(algorithm: Algorithm, threads: int = 1) -> Trainer:
    """Return the trainer; its library is imported here and not before (seconds).

    An algorithm that is not ours is trained by what a package registers for it in the entry point group
    ``skewless.trainers``: a function from the number of threads to a Trainer.

    Raises:
        DefinitionError: the library is not installed, or nothing trains this algorithm.
    """
    # Threads that spin while they wait make training three times slower beside any other load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if algorithm in ALGORITHMS:
        return _ours(algorithm, threads)
    make: Callable[[int], Trainer] | None = find_plugin("skewless.trainers", algorithm)
    if make is None:
        raise DefinitionError(
            f"algorithm {algorithm!r}",
            "is unknown",
            fix=f"use one of {', '.join(ALGORITHMS)}, or install what registers it in skewless.trainers",
        )
    return make(threads)


def _ours(algorithm: Algorithm, threads: int) -> Trainer:
    try:
        if algorithm == "lightgbm":
            from skewless.training.trainers.lightgbm import LightGBMTrainer  # noqa: PLC0415 - seconds to import

            return LightGBMTrainer(threads)
        if algorithm == "xgboost":
            from skewless.training.trainers.xgboost import XGBoostTrainer  # noqa: PLC0415 - as above

            return XGBoostTrainer(threads)
        from skewless.training.trainers.sklearn import SklearnTrainer  # noqa: PLC0415 - as above

        return SklearnTrainer(threads)
    except ImportError as error:
        extra = "sklearn" if algorithm == "sklearn" else "cpu"
        raise DefinitionError(
            f"algorithm {algorithm!r}",
            "is not installed",
            value=str(error),
            fix=f"install skewless with the extra '{extra}'",
        ) from error
