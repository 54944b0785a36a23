"""XGBoost's ``inplace_predict`` for each request by itself, behind raw ASGI and orjson.

``python -m benchmarks.peers.inplace PORT MODEL_FILE``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
import uvicorn
import xgboost

Message = dict[str, Any]
_PLAIN = [(b"content-type", b"application/json")]


class App:
    """The ASGI application."""

    def __init__(self, model_file: str) -> None:
        self._booster = xgboost.Booster(model_file=model_file)
        self._booster.set_param({"nthread": 1})

    async def __call__(
        self,
        scope: Message,  # noqa: ARG002 - ASGI's three arguments
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request with one tensor."""
        tensor = orjson.loads((await receive())["body"])["inputs"][0]
        matrix = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        scores = self._booster.inplace_predict(matrix).tolist()
        score = {"name": "score", "shape": [len(scores)], "datatype": "FP64", "data": scores}
        body = orjson.dumps({"model_name": "fraud", "outputs": [score]})
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [*_PLAIN, length]})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        App(sys.argv[2]),
        port=int(sys.argv[1]),
        log_level="error",
        access_log=False,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
    )
