"""What a packaged version says of a dataset's test rows."""

from __future__ import annotations

import numpy as np

from skewless.contract.errors import PackageError
from skewless.contract.spec import ModelSpec
from skewless.infra.packages.served_model import load_model
from skewless.infra.packages.store import PackageStore
from skewless.infra.runtimes.port import Scores
from skewless.training.dataset import Dataset


def version_scores(dataset: Dataset, spec: ModelSpec, store: PackageStore, version: str) -> Scores:
    """Return a version's scores of the test rows, from the vectors of its own pinned plan.

    Raises:
        PackageError: the package is altered, cannot be loaded, or has another task or other classes.
        DefinitionError: a transform of the package gives other bits for one row than for many.
        SourceError: the label table lacks a key or request field that the version needs.
        StoreError: the log of one of its views is gone.
    """
    model = load_model(store, spec.name, version)
    try:
        trained = model.package.spec
        if (trained.task, trained.classes) != (spec.task, spec.classes):
            raise PackageError(
                f"model {spec.name!r} {version}",
                "has another task",
                value=" ".join([trained.task, *trained.classes]),
                fix="train it again under the plan in force",
            )
        matrix = dataset.test_matrix(model.assembler, trained.labels)
        return model.runtime.score(np.ascontiguousarray(matrix))
    finally:
        model.runtime.close()
