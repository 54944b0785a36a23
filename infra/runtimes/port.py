"""The port of everything that scores a model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import RequestError

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Scores = NDArray[np.float64]
"""``(n,)`` of a model with one output, ``(n, k)`` of one with k outputs; C-contiguous."""


class Runtime(Protocol):
    """A loaded model.

    A matrix is ``(n, n_features)`` float64, C-contiguous; NaN is missing; ``n = 0`` is allowed. Any
    other layout, type or width is refused with RequestError and never copied or cast: a float32 cast
    alone moves scores. A row's result does not depend on the rows beside it. Results belong to the caller.

    Calls block, use one core, release the GIL, and may come from several threads at once. The owner
    calls ``close`` once no call is in flight; a call after that raises PackageError.
    """

    @property
    def runtime_id(self) -> str:
        """Name library, way of calling and version, for example ``lightgbm-capi-4.7.0``."""
        ...

    @property
    def n_features(self) -> int:
        """Return the width of the matrix."""
        ...

    @property
    def n_outputs(self) -> int:
        """Return the numbers per row: the classes of a multiclass model, 1 of any other."""
        ...

    def margin(self, matrix: Matrix) -> Scores:
        """Return raw margins, float64, bit-equal to those of the library that trained."""
        ...

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, float64: probabilities (binary, multiclass), a value, or a rank score."""
        ...

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return how much each feature adds to the margin, by the library's own TreeSHAP.

        The last column is the bias; a row sums up to its margin, but for rounding.

        Returns:
            ``(n, n_features + 1)`` float64; of k outputs ``(n, k, n_features + 1)``.

        Raises:
            RequestError: this kind of model has none.
        """
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...


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
