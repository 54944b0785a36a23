"""The same rows through all APIs of the server: their scores are equal bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from skewless.client import Client
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import StoreError
from skewless.demo.tour_state import Row, TourState

_ROWS = 200
_OK = 200
_DATATYPES = {
    DType.BOOL: "BOOL",
    DType.INT32: "INT32",
    DType.INT64: "INT64",
    DType.TIMESTAMP: "INT64",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
}


def compare_apis(tour: TourState, client: Client) -> None:
    """Send the latest rows again: to `/predict`, as tensors of entities, and as complete vectors."""
    url = json.loads((tour.project.state / "server.json").read_text())["url"]
    with tour.stage("All APIs give the same answer") as print_line:
        for spec in tour.served:
            rows, plan = tour.asked.get(spec.name, [])[-_ROWS:], tour.plan_of(spec)
            if not rows:
                continue
            first = client.predict(rows, model=spec.name)
            inputs = [_tensor(column, rows) for column in (*plan.join_keys, *plan.request)]
            entities = _infer(url, spec.name, inputs, as_of=first.t_us)
            vectors = entities["feature_values"]
            matrix = {"name": "features", "shape": vectors["shape"], "datatype": "FP64", "data": vectors["data"]}
            predicted = [score for item in first for score in (item.scores or (item.score,))]
            scores = [predicted, entities["score"]["data"], _infer(url, spec.name, [matrix])["score"]["data"]]
            differ = sum(len({*item}) > 1 for item in zip(*scores, strict=True))
            print_line(f"{spec.name}: {len(rows)} rows by /predict, as entities and as vectors by /v2: {differ} differ")
            tour.facts["faces_different"] = tour.facts.get("faces_different", 0) + differ


def _tensor(column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    datatype = _DATATYPES.get(column.dtype, "BYTES")
    return {"name": column.name, "shape": [len(rows)], "datatype": datatype, "data": [row[column.name] for row in rows]}


def _infer(url: str, model: str, inputs: Sequence[dict[str, Any]], **parameters: int) -> dict[str, Any]:
    """Return the outputs of a request of the Open Inference Protocol, by name."""
    names = [{"name": "score"}, {"name": "feature_values"}]
    request = json.dumps({"inputs": inputs, "outputs": names, "parameters": parameters})
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", request, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        body = json.loads(reply.read())
    finally:
        connection.close()
    if reply.status != _OK:
        raise StoreError(f"server at {url}", body["error"], fix="read server.log")
    return {output["name"]: output for output in body["outputs"]}
