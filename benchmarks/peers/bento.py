"""A BentoML service around the model that the variable ``MODEL_FILE`` names: ``bentoml serve``."""

from __future__ import annotations

import os

import bentoml  # type: ignore[import-not-found]  # it has an environment of its own
import lightgbm
import numpy as np

from benchmarks.peers.tensors import Inferred, Tensor, scores_reply


@bentoml.service(workers=1)
class Scorer:
    """Scores one tensor."""

    def __init__(self) -> None:
        self._booster = lightgbm.Booster(model_file=os.environ["MODEL_FILE"])

    @bentoml.api(route="/v2/models/fraud/infer")  # type: ignore[untyped-decorator]
    def infer(self, inputs: list[Tensor]) -> Inferred:
        """Answer a request."""
        matrix = np.array(inputs[0].data, dtype=np.float64).reshape(inputs[0].shape)
        return scores_reply(np.asarray(self._booster.predict(matrix, num_threads=1)).tolist())
