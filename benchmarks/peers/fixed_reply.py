"""A server of uvicorn that answers every request with one prediction, at once: what a call costs its caller."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Message = dict[str, Any]

_ID = "01J8Z3D3V7W3F3K3A0C0D0E0F0-0"
_BODY = json.dumps(
    {
        "model": "fraud",
        "version": "000001",
        "t": "2026-11-25T02:59:04.179000+00:00",
        "t_us": 1_795_575_544_179_000,
        "log": "best_effort",
        "degraded": False,
        "predictions": [{"id": _ID, "score": 0.25}],
    }
).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def app(
    scope: Message,  # noqa: ARG001 - ASGI's three arguments
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Read the request to its end and answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        log_level="error",
        access_log=False,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        proxy_headers=False,
        interface="asgi3",
    )
