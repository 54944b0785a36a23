"""The child that scores for another process: ``... child_main SOCKET MEMORY KIND ALGORITHM PATH PLACE``.

It opens the model, says so, and then answers one question after the other until the other side is gone.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from skewless.contract.errors import SkewlessError
from skewless.infra.runtimes.child_port import ASK, READY, REPLY, ChildLostError, ResultKind, answer, question, receive
from skewless.infra.runtimes.nvforest import NvForestRuntime
from skewless.infra.runtimes.port import Runtime
from skewless.infra.runtimes.xgboost_cuda import XGBoostCudaRuntime

_TEXT_BYTES = 1_000


def main(arguments: list[str]) -> int:
    """Serve; the exit code is 1 where the model cannot be opened."""
    descriptor, memory, *model = arguments
    # Both also reach the other side, which may still have requests to answer; this one ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(descriptor)) as connection, suppress(BrokenPipeError, ConnectionResetError):
        try:
            runtime = _open(*model)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side must hear of it
            _fail(connection, error)
            return 1
        ready = READY.pack(runtime.n_outputs, runtime.n_features) + runtime.runtime_id.encode()
        connection.sendall(REPLY.pack(0, len(ready)) + ready)
        _serve(connection, int(memory), runtime)
    return 0


def _open(kind: str, algorithm: str, path: str, place: str) -> Runtime:
    if kind == "xgboost-cuda":
        return XGBoostCudaRuntime.from_file(Path(path))
    return NvForestRuntime(algorithm, Path(path), "gpu" if place == "gpu" else "cpu")


def _serve(connection: socket.socket, memory: int, runtime: Runtime) -> None:
    seen = mmap.mmap(memory, mmap.PAGESIZE)
    while True:
        try:
            wanted, rows, size = ASK.unpack(receive(connection, ASK.size))
        except ChildLostError:
            return
        if len(seen) != size:
            seen = mmap.mmap(memory, size)
        try:
            matrix = question(seen, rows, runtime.n_features)
            found = runtime.margin(matrix) if wanted == ResultKind.MARGIN else runtime.score(matrix)
            answer(seen, rows, runtime.n_features, runtime.n_outputs)[:] = found.reshape(-1)
        except Exception as error:  # noqa: BLE001 - out of memory, device lost: the other side knows what to do
            _fail(connection, error)
        else:
            connection.sendall(REPLY.pack(0, 0))


def _fail(connection: socket.socket, error: Exception) -> None:
    if isinstance(error, SkewlessError):
        said = error.problem if error.value is None else f"{error.problem} ({error.value})"
    else:
        said = f"{type(error).__name__}: {error}"
    text = said.encode()[:_TEXT_BYTES]
    connection.sendall(REPLY.pack(1, len(text)) + text)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a device that is lost can keep an interpreter from ending
