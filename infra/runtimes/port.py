"""The port of everything that scores a model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


class Runtime(Protocol):
    """A loaded model with one output per row.

    A matrix is ``(n, n_features)`` float64, C-contiguous; NaN is missing; ``n = 0`` is allowed. Any
    other layout, type or width is refused with RequestError and never copied or cast: a float32 cast
    alone moves scores. A row's result does not depend on the rows beside it.

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

    def margin(self, matrix: Matrix) -> Vector:
        """Return raw margins ``(n,)`` float64, bit-equal to those of the library that trained."""
        ...

    def score(self, matrix: Matrix) -> Vector:
        """Return predictions ``(n,)`` float64: a probability (binary) or a value (regression)."""
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...
