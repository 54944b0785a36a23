"""Ray Serve with one replica around the model: ``python -m benchmarks.peers.ray_serve PORT MODEL_FILE``."""

from __future__ import annotations

import signal
import sys
from typing import Any

import lightgbm
import numpy as np
import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

_REPLICA_CPUS = 0.1


class Scorer:
    """Scores one tensor."""

    def __init__(self, model_file: str) -> None:
        self._booster = lightgbm.Booster(model_file=model_file)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        tensor: dict[str, Any] = orjson.loads(await request.body())["inputs"][0]
        matrix = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        scores = np.asarray(self._booster.predict(matrix, num_threads=1)).tolist()
        score = {"name": "score", "shape": [len(scores)], "datatype": "FP64", "data": scores}
        return Response(orjson.dumps({"model_name": "fraud", "outputs": [score]}), media_type="application/json")


def main() -> None:
    """Serve until SIGTERM."""
    stop = {signal.SIGINT, signal.SIGTERM}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    options = {"num_replicas": 1, "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": _REPLICA_CPUS}}
    serve.run(serve.deployment(**options)(Scorer).bind(sys.argv[2]), route_prefix="/")
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    signal.sigwait(stop)
    ray.shutdown()


if __name__ == "__main__":
    main()
