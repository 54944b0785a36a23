"""What users write around a model: FastAPI, pydantic and ``Booster.predict``.

``python -m benchmarks.peers.oip_fastapi PORT MODEL_FILE``.
"""

from __future__ import annotations

import sys

import lightgbm
import numpy as np
import uvicorn
from fastapi import FastAPI

from benchmarks.peers.tensors import Infer, Inferred, scores_reply


def create_app(model_file: str) -> FastAPI:
    """Return the application."""
    booster = lightgbm.Booster(model_file=model_file)
    app = FastAPI()

    @app.post("/v2/models/fraud/infer")
    async def infer(asked: Infer) -> Inferred:
        tensor = asked.inputs[0]
        matrix = np.array(tensor.data, dtype=np.float64).reshape(tensor.shape)
        return scores_reply(np.asarray(booster.predict(matrix, num_threads=1)).tolist())

    return app


if __name__ == "__main__":
    app = create_app(sys.argv[2])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, loop="uvloop", http="httptools")
