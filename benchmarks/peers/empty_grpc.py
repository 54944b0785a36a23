"""A gRPC method that answers every message with the same bytes: on grpcio's server with threads, or its asyncio one."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import uvloop

_THREADS = 4  # more are slower


class _Constant(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def __init__(self, behavior: Any) -> None:  # noqa: ANN401 - of grpcio
        self._handler = grpc.unary_unary_rpc_method_handler(behavior)

    def service(self, _: Any) -> Any:  # noqa: ANN401 - of grpcio
        """Return the handler, whatever the method."""
        return self._handler


def _run_threads(address: str, reply: bytes) -> None:
    server = grpc.server(ThreadPoolExecutor(_THREADS), handlers=[_Constant(lambda _, __: reply)])
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


async def _run_asyncio(address: str, reply: bytes) -> None:
    async def answer(_: bytes, __: Any) -> bytes:  # noqa: ANN401 - of grpcio
        return reply

    server = grpc.aio.server(handlers=[_Constant(answer)])
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    _, port, kind, content = sys.argv
    place, constant = f"127.0.0.1:{port}", bytes.fromhex(content)
    if kind == "threads":
        _run_threads(place, constant)
    else:
        uvloop.run(_run_asyncio(place, constant))
