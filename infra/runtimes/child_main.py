"""The child process that scores for another process: ``... child_main SOCKET MEMORY KIND ALGORITHM PATH DEVICE``.

It opens the model, reports that it is ready, and then serves requests until the parent closes the socket.
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
from skewless.infra.runtimes import nvforest, xgboost_cuda
from skewless.infra.runtimes.child import (
    READY,
    REPLY,
    REQUEST,
    ChildLostError,
    ResultKind,
    input_array,
    output_array,
    receive,
)
from skewless.infra.runtimes.port import Runtime

_TEXT_BYTES = 1_000


def main(arguments: list[str]) -> int:
    """Serve requests; the exit code is 1 if the model cannot be opened."""
    descriptor, memory, *model = arguments
    # The parent also gets these signals and may have requests to finish; this process ends when the parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(descriptor)) as connection, suppress(BrokenPipeError, ConnectionResetError):
        try:
            runtime = open_device_runtime(*model)
        except Exception as error:  # noqa: BLE001 - the parent must get every error
            _send_error(connection, error)
            return 1
        ready = READY.pack(runtime.n_outputs, runtime.n_features) + runtime.runtime_id.encode()
        connection.sendall(REPLY.pack(0, len(ready)) + ready)
        _serve(connection, int(memory), runtime)
    return 0


def open_device_runtime(kind: str, algorithm: str, path: str, device: str) -> Runtime:
    """Return a model that nvForest or XGBoost's CUDA code scores in this process; the arguments are those of a child.

    Raises:
        PackageError: the model cannot be opened.
    """
    if kind == "xgboost-cuda":
        return xgboost_cuda.XGBoostCudaRuntime.from_file(Path(path))
    return nvforest.NvForestRuntime(algorithm, Path(path), "gpu" if device == "gpu" else "cpu")


def _serve(connection: socket.socket, memory: int, runtime: Runtime) -> None:
    shared = mmap.mmap(memory, mmap.PAGESIZE)
    while True:
        try:
            kind, rows, size = REQUEST.unpack(receive(connection, REQUEST.size))
        except ChildLostError:
            return
        # Only the parent resizes the memory; the request has its new size.
        if len(shared) != size:
            shared = mmap.mmap(memory, size)
        try:
            matrix = input_array(shared, rows, runtime.n_features)
            result = runtime.margin(matrix) if kind == ResultKind.MARGIN else runtime.score(matrix)
            output_array(shared, rows, runtime.n_features, runtime.n_outputs)[:] = result.reshape(-1)
        except Exception as error:  # noqa: BLE001 - out of memory, device lost: the parent handles it
            _send_error(connection, error)
        else:
            connection.sendall(REPLY.pack(0, 0))


def _send_error(connection: socket.socket, error: Exception) -> None:
    if isinstance(error, SkewlessError):
        message = error.problem if error.value is None else f"{error.problem} ({error.value})"
    else:
        message = f"{type(error).__name__}: {error}"
    text = message.encode()[:_TEXT_BYTES]
    connection.sendall(REPLY.pack(1, len(text)) + text)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a lost device can keep the interpreter from exiting
