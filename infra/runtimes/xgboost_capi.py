"""XGBoost through its C API: no ``import xgboost``, which brings pandas and scipy."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.runtimes.library import NativeLibrary, open_library
from infra.runtimes.matrix import check_matrix
from infra.runtimes.port import Matrix, Vector
from skewless.errors import PackageError

_VALUE = 0
_MARGIN = 1


def load_library() -> NativeLibrary:
    """Load XGBoost's shared library.

    Raises:
        PackageError: it is not installed, or something that it needs is not.
    """
    return open_library("xgboost", "libxgboost", "VERSION", "XGBGetLastError")


class XGBoostRuntime:
    """An XGBoost model of one output; see Runtime for the contract.

    The matrix is read in place as float64; XGBoost itself compares and adds in float32, so results are
    float32 numbers, widened. Its result buffer belongs to the calling thread and is copied at once.

    Args:
        model: JSON or UBJSON of the model, as ``Booster.save_raw`` wrote it.
        name: what errors call it.

    Raises:
        PackageError: XGBoost is missing, the bytes are not a model, or it has several outputs.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self._library = load_library()
        _declare(self._library.handle)
        self._name = name
        self._booster = ctypes.c_void_p()
        if not model:  # XGBoost 3.2 aborts the process on an empty buffer
            raise PackageError(name, "is empty", fix="train and package the model again")
        self._call("XGBoosterCreate", None, 0, ctypes.byref(self._booster))
        try:
            self._call("XGBoosterSetParam", self._booster, b"verbosity", b"0")
            self._call("XGBoosterLoadModelFromBuffer", self._booster, model, len(model))
            self._call("XGBoosterSetParam", self._booster, b"nthread", b"1")
            self._n_features = self._count()
            self._require_one_output()
        except PackageError:
            self.close()
            raise

    @classmethod
    def from_file(cls, path: Path) -> XGBoostRuntime:
        """Load a model file."""
        return cls(path.read_bytes(), f"model file {path.name!r}")

    @property
    def runtime_id(self) -> str:
        """Name library, way of calling and version."""
        return f"xgboost-capi-{self._library.version}"

    @property
    def n_features(self) -> int:
        """Return the width of the matrix."""
        return self._n_features

    def margin(self, matrix: Matrix) -> Vector:
        """Return what ``Booster.inplace_predict(matrix, predict_type="margin")`` returns, widened."""
        return self._predict(matrix, _MARGIN)

    def score(self, matrix: Matrix) -> Vector:
        """Return what ``Booster.inplace_predict(matrix)`` returns, widened."""
        return self._predict(matrix, _VALUE)

    def close(self) -> None:
        """Free the model."""
        if self._booster.value is not None:
            self._call("XGBoosterFree", self._booster)
            self._booster = ctypes.c_void_p()

    def _predict(self, matrix: Matrix, kind: int) -> Vector:
        rows = check_matrix(matrix, self._n_features)
        if self._booster.value is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        if rows == 0:
            return np.empty(0, dtype=np.float64)
        return self._read(matrix, kind).astype(np.float64)

    def _read(self, matrix: Matrix, kind: int) -> NDArray[np.float32]:
        """Return XGBoost's own buffer, which stands until the next call of this thread."""
        shape, result = ctypes.POINTER(ctypes.c_uint64)(), ctypes.POINTER(ctypes.c_float)()
        dimensions = ctypes.c_uint64()
        self._call(
            "XGBoosterPredictFromDense",
            self._booster,
            _array_interface(matrix),
            _config(kind),
            None,
            ctypes.byref(shape),
            ctypes.byref(dimensions),
            ctypes.byref(result),
        )
        return np.ctypeslib.as_array(result, shape=tuple(shape[: dimensions.value]))

    def _count(self) -> int:
        out = ctypes.c_uint64()
        self._call("XGBoosterGetNumFeature", self._booster, ctypes.byref(out))
        return out.value

    def _require_one_output(self) -> None:
        probe = self._read(np.full((1, self._n_features), np.nan), _MARGIN)
        if probe.shape != (1,):
            raise PackageError(self._name, "has several outputs", value=probe.size, fix="train binary or regression")

    def _call(self, function: str, *args: object) -> None:
        self._library.call(self._name, function, *args)


def _array_interface(matrix: Matrix) -> bytes:
    rows, columns = matrix.shape
    text = f'{{"data":[{matrix.ctypes.data},true],"shape":[{rows},{columns}],"typestr":"<f8","version":3}}'
    return text.encode()


def _config(kind: int) -> bytes:
    return (
        b'{"type":%d,"training":false,"iteration_begin":0,"iteration_end":0,"strict_shape":false,'
        b'"cache_id":0,"missing":NaN}' % kind
    )


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the widths of the arguments."""
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures: Mapping[str, list[type]] = {
        "XGBoosterCreate": [pointer, ctypes.c_uint64, pointer],
        "XGBoosterFree": [pointer],
        "XGBoosterSetParam": [pointer, text, text],
        "XGBoosterLoadModelFromBuffer": [pointer, text, ctypes.c_uint64],
        "XGBoosterGetNumFeature": [pointer, pointer],
        "XGBoosterPredictFromDense": [pointer, text, text, pointer, pointer, pointer, pointer],
    }
    for name, types in signatures.items():
        getattr(library, name).argtypes = types
