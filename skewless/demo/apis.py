"""The same rows asked through every face of the server: one moment, one answer, to the bit."""

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


def ask_every_face(walk: TourState, client: Client) -> None:
    """Ask the rows that were asked last again: as `/predict`, as tensors of entities, and as whole vectors."""
    url = json.loads((walk.project.state / "server.json").read_text())["url"]
    with walk.stage("Every face of the server: one moment, one answer") as say:
        for spec in walk.served:
            rows, plan = walk.asked.get(spec.name, [])[-_ROWS:], walk.plan_of(spec)
            if not rows:
                continue
            first = client.predict(rows, model=spec.name)
            inputs = [_tensor(column, rows) for column in (*plan.join_keys, *plan.request)]
            entities = _infer(url, spec.name, inputs, as_of=first.t_us)
            vectors = entities["feature_values"]
            whole = {"name": "features", "shape": vectors["shape"], "datatype": "FP64", "data": vectors["data"]}
            answered = [score for item in first for score in (item.scores or (item.score,))]
            scores = [answered, entities["score"]["data"], _infer(url, spec.name, [whole])["score"]["data"]]
            differ = sum(len({*each}) > 1 for each in zip(*scores, strict=True))
            say(f"{spec.name}: {len(rows)} rows, as /predict, as entities and as vectors of /v2: {differ} differ")
            walk.facts["faces_different"] = walk.facts.get("faces_different", 0) + differ


def _tensor(column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    datatype = _DATATYPES.get(column.dtype, "BYTES")
    return {"name": column.name, "shape": [len(rows)], "datatype": datatype, "data": [row[column.name] for row in rows]}


def _infer(url: str, model: str, inputs: Sequence[dict[str, Any]], **parameters: int) -> dict[str, Any]:
    """Return the outputs of a request of the Open Inference Protocol, by name."""
    wanted = [{"name": "score"}, {"name": "feature_values"}]
    body = json.dumps({"inputs": inputs, "outputs": wanted, "parameters": parameters})
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        found = json.loads(reply.read())
    finally:
        connection.close()
    if reply.status != _OK:
        raise StoreError(f"server at {url}", found["error"], fix="see server.log")
    return {output["name"]: output for output in found["outputs"]}
