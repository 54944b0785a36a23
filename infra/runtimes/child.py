"""A runtime in a child process, and their protocol: if it holds the GIL or crashes, this process continues."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.nvforest import ForestDevice
from skewless.infra.runtimes.port import Matrix, Scores, check_matrix, reshape_outputs

# Kind of result, rows, bytes of the shared memory.
REQUEST = struct.Struct("<iqq")
# 0, or 1 for an error; length of the body that follows: READY and the runtime id of a ready child, or an error text.
REPLY = struct.Struct("<iq")
READY = struct.Struct("<qq")
_FLOAT_BYTES = 8


Kind = Literal["nvforest", "xgboost-cuda"]
"""The scoring code of the child: nvForest, or XGBoost's own CUDA code."""
_START_SECONDS = 120.0  # for imports and the start of a GPU
_MANY_ROWS = 4_096
_ROOT = Path(__file__).parents[3]


class ResultKind(IntEnum):
    """The kind of numbers that a request returns."""

    MARGIN = 0
    SCORE = 1


class ChildLostError(Exception):
    """The child or its parent has ended, or is too late."""


def memory_size(rows: int, n_features: int, n_outputs: int) -> int:
    """Return the bytes of shared memory for a request's rows and results."""
    return rows * (n_features + n_outputs) * _FLOAT_BYTES


def input_array(memory: mmap.mmap, rows: int, n_features: int) -> NDArray[np.float64]:
    """Return the matrix in shared memory, shape ``(rows, n_features)``."""
    return np.frombuffer(memory, dtype=np.float64, count=rows * n_features).reshape(rows, n_features)


def output_array(memory: mmap.mmap, rows: int, n_features: int, n_outputs: int) -> NDArray[np.float64]:
    """Return the results in shared memory, flat."""
    offset = rows * n_features * _FLOAT_BYTES
    return np.frombuffer(memory, dtype=np.float64, count=rows * n_outputs, offset=offset)


def receive(connection: socket.socket, size: int) -> bytes:
    """Return exactly ``size`` bytes.

    Raises:
        ChildLostError: the other process closed the connection, or the timeout is over.
    """
    parts = b""
    while len(parts) < size:
        try:
            part = connection.recv(size - len(parts))
        except OSError as error:  # a timeout is one too
            raise ChildLostError(str(error)) from error
        if not part:
            raise ChildLostError("the process has ended")
        parts += part
    return parts


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
        self._connection, child_end = socket.socketpair()
        try:
            with child_end:
                # One page, the size that the child maps at its start.
                self._memory_map = self._resize(mmap.PAGESIZE)
                arguments = (kind, algorithm, str(path.resolve()), device)
                self._process = _start((child_end.fileno(), self._memory), arguments, environment or {})
            self._connection.settimeout(_START_SECONDS)
            ready = self._receive_reply()
        except (ChildLostError, OSError) as error:
            self.close()
            raise PackageError(
                self._name,
                f"cannot be opened in a child process: {error}",
                fix='run `skewless doctor`, or set device="cpu" in the ModelSpec',
            ) from error
        sizes: tuple[int, int] = READY.unpack(ready[: READY.size])
        self.n_outputs, self.n_features = sizes
        self.runtime_id = ready[READY.size :].decode()

    @property
    def process_id(self) -> int | None:
        """Return the child's process id; None if it has ended."""
        return None if self._process is None else self._process.pid

    def margin(self, matrix: Matrix) -> Scores:
        """Return the child's margins.

        Raises:
            ChildLostError: the child failed, ended, or took too long; in each case it is ended.
        """
        return self._request(matrix, ResultKind.MARGIN)

    def score(self, matrix: Matrix) -> Scores:
        """Return the child's scores; see ``margin``."""
        return self._request(matrix, ResultKind.SCORE)

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
            _wait_in_background(process)

    def _request(self, matrix: Matrix, kind: ResultKind) -> Scores:
        rows = check_matrix(matrix, self.n_features)
        if rows == 0:
            return reshape_outputs(np.empty(0), 0, self.n_outputs)
        with self._lock:
            if self._process is None:
                raise ChildLostError("closed")
            try:
                return self._exchange(matrix, rows, kind)
            # Replies have no numbers: a late one would be taken for the reply to the next request.
            except ChildLostError:
                self._stop()
                raise

    def _exchange(self, matrix: Matrix, rows: int, kind: ResultKind) -> Scores:
        size = memory_size(rows, self.n_features, self.n_outputs)
        if self._memory_map is None or len(self._memory_map) < size:
            # A power of two, so that growing batches seldom resize it.
            self._memory_map = self._resize(1 << (size - 1).bit_length())
        input_array(self._memory_map, rows, self.n_features)[:] = matrix
        self._connection.settimeout(self.timeout_s * max(1.0, rows / _MANY_ROWS))
        try:
            self._connection.sendall(REQUEST.pack(kind, rows, len(self._memory_map)))
        except OSError as error:
            raise ChildLostError(str(error)) from error
        self._receive_reply()
        # A copy, because the next request overwrites the memory.
        values = output_array(self._memory_map, rows, self.n_features, self.n_outputs).copy()
        return reshape_outputs(values, rows, self.n_outputs)

    def _resize(self, size: int) -> mmap.mmap:
        os.ftruncate(self._memory, size)
        return mmap.mmap(self._memory, size)

    def _receive_reply(self) -> bytes:
        failed, length = REPLY.unpack(receive(self._connection, REPLY.size))
        body = receive(self._connection, length)
        if failed:
            raise ChildLostError(body.decode(errors="replace"))
        return body


def _start(shared: tuple[int, int], arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # -P: a file in the working directory must not shadow a module.
    command = [sys.executable, "-P", "-m", "skewless.infra.runtimes.child_main", *map(str, shared), *arguments]
    return subprocess.Popen(  # noqa: S603 - our own program
        command, pass_fds=shared, env=_environment(more), stdin=subprocess.DEVNULL
    )


def _wait_in_background(process: subprocess.Popen[bytes]) -> None:
    """Wait for a killed process in a thread: a GPU driver can take long, and the caller may be the event loop."""
    with suppress(RuntimeError):  # the interpreter itself is ending
        threading.Thread(target=process.wait, name="runtime-end", daemon=True).start()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with a PYTHONPATH on which the child finds this code."""
    paths = [str(_ROOT), more.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
