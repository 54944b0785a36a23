"""The check of each run of `make test`: entities and vectors in the protocol have the bits of `/predict`."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import Request, urlopen

from tests.worlds.trained import MODEL, Sandbox, ask, serving

KINDS = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}


def post(url: str, body: object) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON of a reply."""
    with urlopen(Request(url, json.dumps(body).encode())) as reply:  # noqa: S310 - our own server
        return json.loads(reply.read())


def test_entities_and_vectors_have_the_scores_of_predict(place: Sandbox) -> None:
    rows = ask(3)
    entities = [{"name": n, "datatype": k, "shape": [3], "data": [row[n] for row in rows]} for n, k in KINDS.items()]
    outputs = [{"name": "score"}, {"name": "feature_values"}]
    with serving(place.repo) as server:
        plain = post(f"{server.url}/predict", {"rows": rows})["predictions"]
        infer = f"{server.url}/v2/models/{MODEL}/infer"
        score, values = post(infer, {"inputs": entities, "outputs": outputs})["outputs"]
        vectors = {**values, "name": "features"}
        (again,) = post(infer, {"inputs": [vectors], "outputs": outputs[:1]})["outputs"]
    assert score["data"] == again["data"] == [item["score"] for item in plain]
