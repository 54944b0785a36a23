"""The trainer of an algorithm."""

from __future__ import annotations

import os

from skewless.errors import DefinitionError
from skewless.spec import Algorithm
from training.trainers.port import Trainer


def trainer_for(algorithm: Algorithm, threads: int = 1) -> Trainer:
    """Return the trainer; its library is imported here and not before (seconds).

    Raises:
        DefinitionError: the library is not installed.
    """
    # Threads that spin while they wait make training three times slower beside any other load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if algorithm == "lightgbm":
            from training.trainers.lightgbm import LightGBMTrainer  # noqa: PLC0415 - seconds to import

            return LightGBMTrainer(threads)
        from training.trainers.xgboost import XGBoostTrainer  # noqa: PLC0415 - as above

        return XGBoostTrainer(threads)
    except ImportError as error:
        raise DefinitionError(
            f"algorithm {algorithm!r}",
            "is not installed",
            value=str(error),
            fix="install skewless with the extra 'cpu'",
        ) from error
