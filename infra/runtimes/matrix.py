"""The check that every matrix passes before its address is handed to C."""

from __future__ import annotations

import numpy as np

from infra.runtimes.port import Matrix
from skewless.errors import RequestError


def check_matrix(matrix: Matrix, n_features: int) -> int:
    """Return the number of rows of a matrix that may be scored as it lies in memory.

    Raises:
        RequestError: not float64, not C-contiguous, or another width.
    """
    if matrix.shape[1:] != (n_features,):
        raise RequestError(
            "matrix", "has another shape than the model", value=str(matrix.shape), fix=f"give (n, {n_features})"
        )
    if matrix.dtype != np.float64:
        raise RequestError("matrix", "is not float64", value=str(matrix.dtype), fix="keep values float64 end to end")
    if not (matrix.flags.c_contiguous and matrix.flags.aligned):
        raise RequestError(
            "matrix", "is not C-contiguous", value=str(matrix.strides), fix="build it row by row, or copy it once"
        )
    return int(matrix.shape[0])
