"""What users write: FastAPI, ``store.get_online_features`` and ``Booster.predict``.

``python -m benchmarks.peers.feast_fastapi PORT REPO MODEL_FILE THREADS``; with 0 threads LightGBM chooses.
"""

from __future__ import annotations

import sys
from typing import Any

import lightgbm
import numpy as np
import uvicorn
from fastapi import FastAPI
from feast import FeatureStore

from benchmarks.peers.empty import RequestBody


def create_app(repo: str, model_file: str, threads: int) -> FastAPI:
    """Return the application."""
    store = FeatureStore(repo_path=repo)
    service = store.get_feature_service("all")
    views = service.feature_view_projections
    names = [f"{view.name}__{feature.name}" for view in views for feature in view.features]
    booster = lightgbm.Booster(model_file=model_file)
    options: dict[str, Any] = {"num_threads": threads} if threads else {}
    app = FastAPI()

    @app.post("/predict")
    def predict(ask: RequestBody) -> dict[str, list[float]]:
        rows = [row.model_dump() for row in ask.rows]
        found = store.get_online_features(service, rows, full_feature_names=True).to_dict()
        matrix = np.array([found[name] for name in names], dtype=np.float64).T
        scores = np.asarray(booster.predict(matrix, **options))
        return {"scores": scores.tolist()}

    return app


if __name__ == "__main__":
    port, repo, model_file, threads = sys.argv[1:]
    uvicorn.run(
        create_app(repo, model_file, int(threads)),
        port=int(port),
        log_level="error",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
