"""scikit-learn: the trainer, and a runtime that needs no scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.contract.errors import DefinitionError

if TYPE_CHECKING:
    from skewless.training.trainers.port import Trainer


def make_trainer(threads: int) -> Trainer:
    """Return the trainer; a server, which never calls this, needs no scikit-learn.

    Raises:
        DefinitionError: scikit-learn is not installed.
    """
    try:
        from skewless_sklearn.trainer import SklearnTrainer  # noqa: PLC0415 - seconds to import
    except ImportError as error:
        raise DefinitionError(
            "algorithm 'sklearn'",
            "lacks a library to train",
            value=str(error),
            fix="pip install 'skewless[sklearn]'",
        ) from error
    return SklearnTrainer(threads)
