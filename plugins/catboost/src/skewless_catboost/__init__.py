"""CatBoost: the trainer, and a runtime that needs no CatBoost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from skewless.training.trainers.port import Trainer


def make_trainer(threads: int) -> Trainer:
    """Return the trainer; a server, which never calls this, needs no CatBoost.

    Raises:
        DefinitionError: CatBoost is not installed.
    """
    try:
        from skewless_catboost.trainer import CatBoostTrainer  # noqa: PLC0415 - seconds to import
    except ImportError as error:
        raise DefinitionError(
            "algorithm 'catboost'",
            "lacks a library to train",
            value=str(error),
            fix="pip install 'skewless[catboost]'",
        ) from error
    return CatBoostTrainer(threads)
