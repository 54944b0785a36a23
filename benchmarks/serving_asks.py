"""Requests for scores and what replies say: ours by entity ids, and tensors of the Open Inference Protocol."""

from __future__ import annotations

import json

import numpy as np
import orjson

from benchmarks.http_wire import post
from benchmarks.serving_repo import Ids, Matrix, shop_name

MODEL = "fraud"
INFER = f"/v2/models/{MODEL}/infer"


def predict_request(pairs: Ids, key: str = "", *, shops: bool = True, **options: object) -> bytes:
    """Return a request to ``/predict`` for pairs of card and shop, shape ``(rows, 2)``.

    Args:
        key: the API key, if one is needed.
        shops: whether the model has features of shops; without, only cards are named.
        options: further fields of the body.
    """
    rows = [{"card_id": card} | ({"shop_id": shop_name(shop)} if shops else {}) for card, shop in pairs.tolist()]
    return post("/predict", json.dumps({"rows": rows, **options}).encode(), _headers(key))


def infer_request(vectors: Matrix, key: str = "") -> bytes:
    """Return a request with full feature vectors as one tensor, shape ``(rows, n_features)``, without NaN."""
    tensor = {"name": "features", "shape": list(vectors.shape), "datatype": "FP64", "data": vectors.ravel().tolist()}
    return post(INFER, json.dumps({"inputs": [tensor]}).encode(), _headers(key))


def predict_scores(body: bytes) -> Matrix:
    """Return the scores of a reply of ``/predict``, shape ``(rows,)``."""
    return np.array([row["score"] for row in orjson.loads(body)["predictions"]])


def infer_scores(body: bytes) -> Matrix:
    """Return the scores of a reply with tensors, shape ``(rows,)``: the first of them."""
    return np.array(orjson.loads(body)["outputs"][0]["data"], dtype=np.float64).ravel()


def plain_scores(body: bytes) -> Matrix:
    """Return the scores of a peer that says nothing else, shape ``(rows,)``."""
    return np.array(orjson.loads(body)["scores"], dtype=np.float64)


def _headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}
