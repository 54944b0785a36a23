"""What a packaged version says of a dataset's test rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from infra.runtimes.port import Scores
from infra.served_model import load_model
from skewless.spec import ModelSpec
from training.dataset import Dataset


def version_scores(dataset: Dataset, spec: ModelSpec, packages: Path, version: str) -> Scores | None:
    """Return a version's scores of the test rows; None where it needs other views or has another task.

    Raises:
        PackageError: the package is altered or cannot be loaded.
    """
    model = load_model(packages, spec.name, version)
    try:
        if (model.package.spec.task, model.package.spec.classes) != (spec.task, spec.classes):
            return None
        matrix = dataset.matrix_for(model.assembler)
        return None if matrix is None else model.runtime.score(np.ascontiguousarray(matrix[dataset.test]))
    finally:
        model.runtime.close()
