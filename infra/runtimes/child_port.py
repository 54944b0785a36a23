"""What a process and the child that scores for it say to each other."""

from __future__ import annotations

import mmap
import socket
import struct
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# What is asked, rows, bytes of the memory that both see.
ASK = struct.Struct("<iqq")
# 0 or 1 of a failure, length of what follows: numbers per row and width of a ready child, or the failure's text.
REPLY = struct.Struct("<iq")
READY = struct.Struct("<qq")
_FLOAT_BYTES = 8


Kind = Literal["nvforest", "xgboost-cuda"]
"""What scores in the child: nvForest, or XGBoost's own CUDA code."""


class ResultKind(IntEnum):
    """What the numbers that come back are."""

    MARGIN = 0
    SCORE = 1


class ChildLostError(Exception):
    """The other side is gone, or too late."""


def needed_bytes(rows: int, n_features: int, n_outputs: int) -> int:
    """Return the size of the memory for a question and its answer."""
    return rows * (n_features + n_outputs) * _FLOAT_BYTES


def question(memory: mmap.mmap, rows: int, n_features: int) -> NDArray[np.float64]:
    """Return where the matrix lies, shape ``(rows, n_features)``."""
    return np.frombuffer(memory, dtype=np.float64, count=rows * n_features).reshape(rows, n_features)


def answer(memory: mmap.mmap, rows: int, n_features: int, n_outputs: int) -> NDArray[np.float64]:
    """Return where the numbers lie, flat."""
    offset = rows * n_features * _FLOAT_BYTES
    return np.frombuffer(memory, dtype=np.float64, count=rows * n_outputs, offset=offset)


def receive(connection: socket.socket, size: int) -> bytes:
    """Return exactly so many bytes.

    Raises:
        ChildLostError: the other side closed, or the time is over.
    """
    parts = b""
    while len(parts) < size:
        try:
            part = connection.recv(size - len(parts))
        except OSError as error:  # a timeout is one too
            raise ChildLostError(str(error)) from error
        if not part:
            raise ChildLostError("the other side is gone")
        parts += part
    return parts
