"""The protocol between a process and its scoring child."""

from __future__ import annotations

import mmap
import socket
import struct
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Kind of result, rows, bytes of the shared memory.
REQUEST = struct.Struct("<iqq")
# 0, or 1 for an error; length of the body that follows: READY and the runtime id of a ready child, or an error text.
REPLY = struct.Struct("<iq")
READY = struct.Struct("<qq")
_FLOAT_BYTES = 8


Kind = Literal["nvforest", "xgboost-cuda"]
"""The scoring code of the child: nvForest, or XGBoost's own CUDA code."""


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
