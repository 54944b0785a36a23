"""Values that a library takes for others, written as those, for a runtime that would not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.runtimes.port import Matrix

Rewrite = Callable[[Matrix], Matrix]
"""From a matrix to one of the same shape, float64 or float32, on which both runtimes agree; the first is left alone."""

# LightGBM leaves out what is this close to zero, as if it were zero (kZeroThreshold, a float32).
_ZERO = float(np.float32(1e-35))
_LARGEST = float(np.finfo(np.float64).max)
_UNKNOWN = -1.0
_CODES_LIGHTGBM = 2.0**31
_CODES_XGBOOST = 2.0**24


def rewrite_for(algorithm: str, categorical: Sequence[int]) -> Rewrite:
    """Return what rewrites the values of a model's rows.

    Args:
        algorithm: the library that trained the model.
        categorical: columns that hold category codes.

    Raises:
        PackageError: it is not known how this library reads its values.
    """
    columns = list(categorical)
    if algorithm == "lightgbm":
        return lambda matrix: _as_lightgbm(matrix, columns)
    if algorithm == "xgboost":
        return lambda matrix: _as_xgboost(matrix, columns)
    raise PackageError("algorithm", "is read by its own library alone", value=algorithm, fix="use lightgbm or xgboost")


def _as_lightgbm(matrix: Matrix, categorical: list[int]) -> Matrix:
    """Return the rows as LightGBM reads them.

    No threshold is infinite; a code is cut to an integer, and below 0 or beyond int32 it is in no set.
    """
    values = np.minimum(matrix, _LARGEST)
    values[np.abs(values) <= _ZERO] = 0.0
    for column in categorical:
        codes = values[:, column]
        odd = (codes <= -1.0) | (codes >= _CODES_LIGHTGBM)
        values[:, column] = np.where(odd, _UNKNOWN, np.trunc(codes) + 0.0)
    return values


def _as_xgboost(matrix: Matrix, categorical: list[int]) -> Matrix:
    """Return the rows as XGBoost reads them: as float32, and a code below 0 or beyond 2^24 is in no set."""
    with np.errstate(over="ignore"):
        values = matrix.astype(np.float32)
    for column in categorical:
        codes = values[:, column]
        odd = (codes < 0.0) | (codes >= _CODES_XGBOOST)
        values[:, column] = np.where(odd, np.float32(_UNKNOWN), np.trunc(codes))
    return values  # type: ignore[return-value]  # float32 is what XGBoost compares
