"""The check that every matrix passes before its address is handed to C."""

from __future__ import annotations

import numpy as np

from skewless.contract.errors import RequestError
from skewless.infra.runtimes.port import Matrix, Scores

_FLOAT64 = np.dtype(np.float64)


def check_matrix(matrix: Matrix, n_features: int) -> int:
    """Return the number of rows of a matrix that may be scored as it lies in memory.

    Raises:
        RequestError: not float64, not C-contiguous, or another width.
    """
    shape = matrix.shape
    if shape[1:] != (n_features,):
        raise RequestError(
            "matrix", "has another shape than the model", value=str(shape), fix=f"give (n, {n_features})"
        )
    if matrix.dtype != _FLOAT64:
        raise RequestError("matrix", "is not float64", value=str(matrix.dtype), fix="keep values float64 end to end")
    flags = matrix.flags
    if not (flags.c_contiguous and flags.aligned):
        raise RequestError(
            "matrix", "is not C-contiguous", value=str(matrix.strides), fix="build it row by row, or copy it once"
        )
    rows: int = shape[0]
    return rows


def by_output(values: Scores, rows: int, n_outputs: int, *rest: int) -> Scores:
    """Return a library's flat answer as ``(rows, ...)``, of several outputs as ``(rows, n_outputs, ...)``.

    >>> by_output(np.zeros(6), 2, 3).shape, by_output(np.zeros(2), 2, 1).shape, by_output(np.zeros(8), 2, 1, 4).shape
    ((2, 3), (2,), (2, 4))
    """
    return values.reshape((rows, *rest) if n_outputs == 1 else (rows, n_outputs, *rest))
