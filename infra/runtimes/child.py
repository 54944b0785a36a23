"""A runtime in a child process, and their protocol: if it holds the GIL or crashes, this process continues."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from skewless.contract.errors import PackageError, RequestError, SkewlessError
from skewless.infra.runtimes.nvforest import ForestDevice, NvForestRuntime
from skewless.infra.runtimes.port import Matrix, Runtime, Scores, Vector, check_matrix, reshape_outputs
from skewless.infra.runtimes.xgboost_cuda import XGBoostCudaRuntime

_REQUEST = struct.Struct("<?qq")  # scores or margins, rows, bytes of the shared memory
_OK, _ERROR = b"\0", b"\1"  # begin a reply; an error's text or, in the first reply, the model's sizes follow
_FLOAT_BYTES = 8
Kind = Literal["nvforest", "xgboost-cuda"]
"""The scoring code of the child: nvForest, or XGBoost's own CUDA code."""
_START_SECONDS = 120.0  # for imports and the start of a GPU
_MANY_ROWS = 4_096
_TEXT_BYTES, _MESSAGE_BYTES = 1_000, 4_096
_ROOT = Path(__file__).parents[3]


class ChildLostError(Exception):
    """The child or its parent has ended, or is too late."""


def shared_arrays(memory: mmap.mmap, rows: int, n_features: int, n_outputs: int) -> tuple[Matrix, Vector]:
    """Return the matrix in shared memory, shape ``(rows, n_features)``, and the results behind it, flat."""
    numbers = np.frombuffer(memory, dtype=np.float64, count=rows * (n_features + n_outputs))
    return numbers[: rows * n_features].reshape(rows, n_features), numbers[rows * n_features :]


class ChildRuntime:
    """A model in a child process, scored by nvForest or by XGBoost on a GPU; see Runtime for the contract.

    Rows and results are in shared memory, one request at a time. The child ends with this process.

    Args:
        algorithm: the library that trained the model: ``lightgbm`` or ``xgboost``.
        path: path of its model file.
        device: device that evaluates the trees.
        kind: code that evaluates the trees; XGBoost's own works only on a GPU.
        timeout_s: seconds that a reply for up to 4,096 rows may take, in proportion for more rows; then the child
            counts as lost.
        environment: additional environment variables.

    Raises:
        PackageError: the child cannot open the model, with its reason.
    """

    def __init__(
        self,
        algorithm: str,
        path: Path,
        device: ForestDevice,
        *,
        kind: Kind = "nvforest",
        timeout_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = f"model file {path.name!r}"
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._memory_map: mmap.mmap | None = None
        self._memory = os.memfd_create("skewless")
        # A packet is a message, so messages need no length.
        self._connection, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with child_end:
                # One page, the size that the child maps at its start.
                self._memory_map = self._resize(mmap.PAGESIZE)
                arguments = (kind, algorithm, str(path.resolve()), device)
                self._process = _start((child_end.fileno(), self._memory), arguments, environment or {})
            self.runtime_id, self.n_features, self.n_outputs = json.loads(self._receive(_START_SECONDS))
        except (ChildLostError, OSError) as error:
            self.close()
            raise PackageError(
                self._name,
                f"cannot be opened in a child process: {error}",
                fix='run `skewless doctor`, or set device="cpu" in the ModelSpec',
            ) from error

    def margin(self, matrix: Matrix) -> Scores:
        """Return the child's margins.

        Raises:
            ChildLostError: the child failed, ended, or took too long; in each case it is ended.
        """
        return self._request(matrix, is_score=False)

    def score(self, matrix: Matrix) -> Scores:
        """Return the child's scores; see ``margin``."""
        return self._request(matrix, is_score=True)

    def contributions(self, matrix: Matrix) -> Scores:
        """Raise RequestError: only the library's own runtime has contributions."""
        check_matrix(matrix, self.n_features)
        raise RequestError(self._name, "has no contributions in a child process", fix="use the library's own runtime")

    def close(self) -> None:
        """End the child after its current reply; a second call does nothing."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._connection.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
            # Not closed: arrays may still point into it; the last of them unmaps it.
            self._memory_map = None
        if process is not None:
            # Not SIGTERM, which the child ignores.
            process.kill()
            # In a thread: a GPU driver can take long, and the caller may be the event loop.
            with suppress(RuntimeError):  # the interpreter itself is ending
                threading.Thread(target=process.wait, name="runtime-end", daemon=True).start()

    def _request(self, matrix: Matrix, *, is_score: bool) -> Scores:
        rows = check_matrix(matrix, self.n_features)
        if rows == 0:
            return reshape_outputs(np.empty(0), 0, self.n_outputs)
        with self._lock:
            if self._process is None:
                raise ChildLostError("closed")
            try:
                return self._exchange(matrix, rows, is_score=is_score)
            # Replies have no numbers: a late one would be taken for the reply to the next request.
            except ChildLostError:
                self._stop()
                raise

    def _exchange(self, matrix: Matrix, rows: int, *, is_score: bool) -> Scores:
        size = rows * (self.n_features + self.n_outputs) * _FLOAT_BYTES
        if self._memory_map is None or len(self._memory_map) < size:
            # A power of two, so that growing batches seldom resize it.
            self._memory_map = self._resize(1 << (size - 1).bit_length())
        inputs, results = shared_arrays(self._memory_map, rows, self.n_features, self.n_outputs)
        inputs[:] = matrix
        try:
            self._connection.send(_REQUEST.pack(is_score, rows, len(self._memory_map)))
        except OSError as error:
            raise ChildLostError(str(error)) from error
        self._receive(self.timeout_s * max(1.0, rows / _MANY_ROWS))
        # A copy, because the next request overwrites the memory.
        return reshape_outputs(results.copy(), rows, self.n_outputs)

    def _resize(self, size: int) -> mmap.mmap:
        os.ftruncate(self._memory, size)
        return mmap.mmap(self._memory, size)

    def _receive(self, timeout_s: float) -> bytes:
        """Return the child's reply: empty, or its runtime's id, features and outputs in JSON once it is ready."""
        self._connection.settimeout(timeout_s)
        try:
            message = self._connection.recv(_MESSAGE_BYTES)
        except OSError as error:  # a timeout is one, too
            raise ChildLostError(str(error)) from error
        if not message:
            raise ChildLostError("the process has ended")
        if message[:1] == _ERROR:
            raise ChildLostError(message[1:].decode(errors="replace"))
        return message[1:]


def _start(shared: tuple[int, int], arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # -P: a file in the working directory must not shadow a module.
    command = [sys.executable, "-P", "-m", "skewless.infra.runtimes.child", *map(str, shared), *arguments]
    return subprocess.Popen(  # noqa: S603 - our own program
        command, pass_fds=shared, env=_environment(more), stdin=subprocess.DEVNULL
    )


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with a PYTHONPATH on which the child finds this code."""
    paths = [str(_ROOT), more.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def main(arguments: list[str]) -> int:
    """Serve the requests of another process: the child's program, ``... SOCKET MEMORY KIND ALGORITHM PATH DEVICE``.

    It opens the model, reports that it is ready, and then serves requests until the parent closes the socket. The exit
    code is 1 if the model cannot be opened.
    """
    descriptor, memory, *model = arguments
    # The parent also gets these signals and may have requests to finish; this process ends when the parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(descriptor)) as connection, suppress(BrokenPipeError, ConnectionResetError):
        try:
            runtime = open_device_runtime(*model)
        except Exception as error:  # noqa: BLE001 - the parent must get every error
            connection.send(_describe(error))
            return 1
        connection.send(_OK + json.dumps((runtime.runtime_id, runtime.n_features, runtime.n_outputs)).encode())
        _serve(connection, int(memory), runtime)
    return 0


def open_device_runtime(kind: str, algorithm: str, path: str, device: str) -> Runtime:
    """Return a model that nvForest or XGBoost's CUDA code scores in this process; the arguments are those of a child.

    Raises:
        PackageError: the model cannot be opened.
    """
    if kind == "xgboost-cuda":
        return XGBoostCudaRuntime.from_file(Path(path))
    return NvForestRuntime(algorithm, Path(path), "gpu" if device == "gpu" else "cpu")


def _serve(connection: socket.socket, memory: int, runtime: Runtime) -> None:
    shared = mmap.mmap(memory, mmap.PAGESIZE)
    while message := connection.recv(_MESSAGE_BYTES):
        is_score, rows, size = _REQUEST.unpack(message)
        # Only the parent resizes the memory; the request has its new size.
        if len(shared) != size:
            shared = mmap.mmap(memory, size)
        reply = _OK
        try:
            matrix, results = shared_arrays(shared, rows, runtime.n_features, runtime.n_outputs)
            results[:] = (runtime.score(matrix) if is_score else runtime.margin(matrix)).reshape(-1)
        except Exception as error:  # noqa: BLE001 - out of memory, device lost: the parent handles it
            reply = _describe(error)
        connection.send(reply)


def _describe(error: Exception) -> bytes:
    if isinstance(error, SkewlessError):
        text = error.problem if error.value is None else f"{error.problem} ({error.value})"
    else:
        text = f"{type(error).__name__}: {error}"
    return _ERROR + text.encode()[:_TEXT_BYTES]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a lost device can keep the interpreter from exiting
