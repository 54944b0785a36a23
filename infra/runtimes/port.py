"""The port of everything that scores a model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
