"""Scores LightGBM models through the C API, because ``import lightgbm`` takes 4 CPU seconds."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.library import NativeLibrary, open_library
from skewless.infra.models.runtimes.port import Leaves, Matrix, Scores, Vector, check_matrix, reshape_outputs

_FLOAT64 = 1
_ROW_MAJOR = 1
_NORMAL = 0
_RAW = 1
_LEAVES = 2
_CONTRIBUTIONS = 3
_ALL_TREES = -1
_PARAMETERS = b"num_threads=1 verbosity=-1"
_FLOAT_BYTES = 8
# A call for many rows takes 7 us more than a call for a single row; a step of the loop takes 0.7 us.
_FEW_ROWS = 8
_POINTER, _INT, _INT32, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int32, ctypes.c_char_p
_SIGNATURES: Mapping[str, Sequence[type]] = {
    "LGBM_BoosterLoadModelFromString": [_TEXT, _POINTER, _POINTER],
    "LGBM_BoosterGetNumFeature": [_POINTER, _POINTER],
    "LGBM_BoosterGetNumClasses": [_POINTER, _POINTER],
    "LGBM_BoosterFree": [_POINTER],
    "LGBM_BoosterCalcNumPredict": [_POINTER, _INT, _INT, _INT, _INT, _POINTER],
    "LGBM_FastConfigFree": [_POINTER],
    "LGBM_BoosterPredictForMatSingleRowFast": [_POINTER, _POINTER, _POINTER, _POINTER],
    "LGBM_BoosterPredictForMatSingleRowFastInit": [_POINTER, _INT, _INT, _INT, _INT, _INT32, _TEXT, _POINTER],
    "LGBM_BoosterPredictForMat": [
        _POINTER, _POINTER, _INT, _INT32, _INT32, _INT, _INT, _INT, _INT, _TEXT, _POINTER, _POINTER,
    ],
}  # fmt: skip


def load_library() -> NativeLibrary:
    """Load LightGBM's shared library.

    Raises:
        PackageError: it or one of its dependencies is not installed.
    """
    return open_library("lightgbm", "lib_lightgbm", "VERSION.txt", "LGBM_GetLastError")


class LightGBMRuntime:
    """A LightGBM model; see Runtime for the contract.

    Few rows use the single-row fast call (its handle is built once at load, and LightGBM protects it with a mutex),
    more rows use ``PredictForMat``. Both add the trees in the same order, so both give the same bits.

    Args:
        model: text of the model, as ``Booster.model_to_string`` wrote it.
        name: its name in errors.

    Raises:
        PackageError: LightGBM is missing, or the text is not a model.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self.library = load_library()
        self.runtime_id = f"lightgbm-capi-{self.library.version}"
        self.library.declare(_SIGNATURES)
        self._name = name
        self._booster = ctypes.c_void_p()
        self._fast: Mapping[int, ctypes.c_void_p] = {}
        self._call("LGBM_BoosterLoadModelFromString", model, ctypes.byref(ctypes.c_int()), ctypes.byref(self._booster))
        try:
            self.n_features = self._count("LGBM_BoosterGetNumFeature")
            self.n_outputs = self._count("LGBM_BoosterGetNumClasses")
            self._fast = {kind: self._fast_handle(kind) for kind in (_NORMAL, _RAW)}
        except PackageError:
            self.close()
            raise
        self._predict_row = self.library.handle.LGBM_BoosterPredictForMatSingleRowFast
        self._cells = ctypes.c_double * self.n_outputs
        # Threads may share it, because LightGBM writes the same number at every call.
        self._length = ctypes.byref(ctypes.c_int64())

    def margin(self, matrix: Matrix) -> Scores:
        """Return the result of ``Booster.predict(matrix, raw_score=True)``, bit for bit."""
        return self._predict(matrix, _RAW)

    def score(self, matrix: Matrix) -> Scores:
        """Return the result of ``Booster.predict(matrix)``, bit for bit."""
        return self._predict(matrix, _NORMAL)

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the result of ``Booster.predict(matrix, pred_contrib=True)``, bit for bit; see Runtime."""
        rows = check_matrix(matrix, self.n_features)
        self._open_handle(_NORMAL)
        width = self.n_features + 1
        values = self._predict_many(matrix, rows, _CONTRIBUTIONS, self.n_outputs * width)
        return reshape_outputs(values, rows, self.n_outputs, width)

    def leaves(self, matrix: Matrix) -> Leaves:
        """Return the result of ``Booster.predict(matrix, pred_leaf=True)``, ``(n, n_trees)``; see LeafRuntime."""
        rows = check_matrix(matrix, self.n_features)
        self._open_handle(_NORMAL)
        width = ctypes.c_int64()
        self._call("LGBM_BoosterCalcNumPredict", self._booster, 1, _LEAVES, 0, _ALL_TREES, ctypes.byref(width))
        values = self._predict_many(matrix, rows, _LEAVES, width.value)
        return values.astype(np.int32).reshape(rows, width.value)

    def close(self) -> None:
        """Free the model and its fast handles."""
        # The handles refer to the booster, so they are freed first.
        handles, self._fast = self._fast, {}
        for handle in handles.values():
            self._call("LGBM_FastConfigFree", handle)
        if self._booster.value is not None:
            self._call("LGBM_BoosterFree", self._booster)
            self._booster = ctypes.c_void_p()

    def require_open(self) -> None:
        """Raise PackageError if the model is closed."""
        self._open_handle(_NORMAL)

    def _predict(self, matrix: Matrix, kind: int) -> Scores:
        rows = check_matrix(matrix, self.n_features)
        handle = self._open_handle(kind)
        if rows == 1:
            values = self._predict_one(matrix, handle)
        elif rows <= _FEW_ROWS:
            values = self._predict_few(matrix, rows, handle)
        else:
            values = self._predict_many(matrix, rows, kind, self.n_outputs)
        return values if self.n_outputs == 1 else values.reshape(rows, self.n_outputs)

    def _open_handle(self, kind: int) -> ctypes.c_void_p:
        handle = self._fast.get(kind)
        if handle is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return handle

    def _predict_one(self, matrix: Matrix, handle: ctypes.c_void_p) -> Vector:
        cells = self._cells()
        # Copying one row takes a twentieth of the time that numpy needs to return its address.
        if self._predict_row(handle, matrix.tobytes(), self._length, cells) != 0:
            raise self.library.failure(self._name)
        return np.frombuffer(memoryview(cells), dtype=np.float64)

    def _predict_few(self, matrix: Matrix, rows: int, handle: ctypes.c_void_p) -> Vector:
        result = np.empty(rows * self.n_outputs)
        source, target = matrix.ctypes.data, result.ctypes.data
        for _ in range(rows):
            if self._predict_row(handle, source, self._length, target) != 0:
                raise self.library.failure(self._name)
            source += self.n_features * _FLOAT_BYTES
            target += self.n_outputs * _FLOAT_BYTES
        return result

    def _predict_many(self, matrix: Matrix, rows: int, kind: int, width: int) -> Vector:
        result = np.empty(rows * width)
        if rows:
            self._call(
                "LGBM_BoosterPredictForMat",
                self._booster,
                matrix.ctypes.data,
                _FLOAT64,
                rows,
                self.n_features,
                _ROW_MAJOR,
                kind,
                0,
                _ALL_TREES,
                _PARAMETERS,
                ctypes.byref(ctypes.c_int64()),
                result.ctypes.data,
            )
        return result

    def _fast_handle(self, kind: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            self._booster,
            kind,
            0,
            _ALL_TREES,
            _FLOAT64,
            self.n_features,
            _PARAMETERS,
            ctypes.byref(handle),
        )
        return handle

    def _count(self, function: str) -> int:
        out = ctypes.c_int()
        self._call(function, self._booster, ctypes.byref(out))
        return out.value

    def _call(self, function: str, *args: object) -> None:
        self.library.call(self._name, function, *args)
