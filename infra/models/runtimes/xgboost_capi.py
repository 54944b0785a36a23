"""Scores XGBoost models through the C API, because ``import xgboost`` also imports pandas and scipy."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.library import NativeLibrary, open_library
from skewless.infra.models.runtimes.port import Leaves, Matrix, Scores, Vector, check_matrix, reshape_outputs

_VALUE = 0
_MARGIN = 1
_CONTRIBUTIONS = 2
_LEAVES = 6
_LARGEST = float(np.finfo(np.float32).max)
_NEW_MATRIX = b'{"missing":NaN,"nthread":1}'
_POINTER, _NUMBER, _TEXT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p
_SIGNATURES: Mapping[str, Sequence[type]] = {
    "XGBoosterCreate": [_POINTER, _NUMBER, _POINTER],
    "XGBoosterFree": [_POINTER],
    "XGBoosterSetParam": [_POINTER, _TEXT, _TEXT],
    "XGBoosterLoadModelFromBuffer": [_POINTER, _TEXT, _NUMBER],
    "XGBoosterSaveModelToBuffer": [_POINTER, _TEXT, _POINTER, _POINTER],
    "XGBoosterGetNumFeature": [_POINTER, _POINTER],
    "XGBoosterPredictFromDense": [_POINTER, _TEXT, _TEXT, _POINTER, _POINTER, _POINTER, _POINTER],
    "XGBoosterPredictFromDMatrix": [_POINTER, _POINTER, _TEXT, _POINTER, _POINTER, _POINTER],
    "XGDMatrixCreateFromDense": [_TEXT, _TEXT, _POINTER],
    "XGProxyDMatrixCreate": [_POINTER],
    "XGDMatrixSetInfoFromInterface": [_POINTER, _TEXT, _TEXT],
    "XGDMatrixFree": [_POINTER],
}


def load_library() -> NativeLibrary:
    """Load XGBoost's shared library.

    Raises:
        PackageError: it or one of its dependencies is not installed.
    """
    return open_library("xgboost", "libxgboost", "VERSION", "XGBGetLastError")


class CallArguments:
    """Reusable arguments of one call at a time.

    Without a proxy matrix as argument, XGBoost makes one per call and reads the limits of the cgroup from files: 25 us.

    Args:
        library: XGBoost's library.
        name: the model's name in errors.
        n_features: width of the matrix.
    """

    def __init__(self, library: NativeLibrary, name: str, n_features: int) -> None:
        self._library = library
        self._name = name
        self._row = np.empty((1, n_features))
        self._row_text = array_interface(self._row)
        self._result = ctypes.c_void_p()
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self.proxy = ctypes.c_void_p()
        self.outputs = tuple(ctypes.byref(cell) for cell in (self._shape, self._dimensions, self._result))
        library.call(name, "XGProxyDMatrixCreate", ctypes.byref(self.proxy))

    def set_matrix(self, matrix: Matrix, rows: int) -> bytes:
        """Return the array interface of the matrix; the caller keeps the matrix alive until the call is over."""
        if rows != 1:
            return array_interface(matrix)
        # The interface of the fixed buffer is written once: copying a row is faster than writing another one.
        self._row[...] = matrix
        return self._row_text

    def copy_result(self, size: int) -> Vector:
        """Return XGBoost's result buffer as float64; a copy, because the thread's next call overwrites the buffer."""
        data = ctypes.string_at(self._result.value or 0, size * ctypes.sizeof(ctypes.c_float))
        return np.frombuffer(data, dtype=np.float32).astype(np.float64)

    @property
    def result(self) -> int:
        """Return the address of XGBoost's result buffer."""
        return self._result.value or 0

    def shape(self) -> tuple[int, ...]:
        """Return the shape of XGBoost's last result."""
        return tuple(self._shape[: self._dimensions.value])

    def free(self) -> None:
        """Free the proxy matrix."""
        self._library.call(self._name, "XGDMatrixFree", self.proxy)


def array_interface(array: Matrix | NDArray[np.float32]) -> bytes:
    """Return an array of one or two dimensions in numpy's array interface, as JSON."""
    shape = ",".join(map(str, array.shape))
    text = f'{{"data":[{array.ctypes.data},true],"shape":[{shape}],"typestr":"{array.dtype.str}","version":3}}'
    return text.encode()


class XGBoostRuntime:
    """An XGBoost model; see Runtime for the contract.

    The matrix is read in place as float64. XGBoost compares and adds in float32, so results are float32 numbers,
    converted to float64. Its result buffer belongs to the calling thread and is copied immediately.

    Args:
        model: JSON or UBJSON of the model, as ``Booster.save_raw`` wrote it.
        name: its name in errors.

    Raises:
        PackageError: XGBoost is missing, or the bytes are not a model.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self.library = load_library()
        self.runtime_id = f"xgboost-capi-{self.library.version}"
        self.library.declare(_SIGNATURES)
        self._name = name
        self._booster = ctypes.c_void_p()
        self._idle: list[CallArguments] = []
        if not model:  # XGBoost 3.2 aborts the process on an empty buffer
            raise PackageError(name, "is empty", fix="train and package the model again")
        self._call("XGBoosterCreate", None, 0, ctypes.byref(self._booster))
        try:
            self._call("XGBoosterSetParam", self._booster, b"verbosity", b"0")
            self._call("XGBoosterLoadModelFromBuffer", self._booster, model, len(model))
            self._call("XGBoosterSetParam", self._booster, b"nthread", b"1")
            count = ctypes.c_uint64()
            self._call("XGBoosterGetNumFeature", self._booster, ctypes.byref(count))
            self.n_features = count.value
            self.n_outputs = self._outputs()
        except PackageError:
            self.close()
            raise

    def margin(self, matrix: Matrix) -> Scores:
        """Return the result of ``Booster.inplace_predict(matrix, predict_type="margin")`` as float64."""
        return self._predict(matrix, _CONFIG[_MARGIN])

    def score(self, matrix: Matrix) -> Scores:
        """Return the result of ``Booster.inplace_predict(matrix)`` as float64."""
        return self._predict(matrix, _CONFIG[_VALUE])

    def contributions(self, matrix: Matrix) -> Scores:
        """Return the result of ``Booster.predict(DMatrix(matrix), pred_contribs=True)`` as float64; see Runtime.

        A DMatrix rejects values outside of float32's range, so they are clipped to its largest number.
        """
        rows, width = check_matrix(matrix, self.n_features), self.n_features + 1
        self._require_open()
        if not rows:
            return reshape_outputs(np.empty(0), 0, self.n_outputs, width)
        return reshape_outputs(self._predict_dmatrix(matrix, _CONTRIBUTIONS), rows, self.n_outputs, width)

    def leaves(self, matrix: Matrix) -> Leaves:
        """Return the result of ``Booster.predict(DMatrix(matrix), pred_leaf=True)`` as int32; see LeafRuntime.

        Values outside of float32's range are clipped, as for ``contributions``. Indices are exact up to 2^24.
        """
        rows = check_matrix(matrix, self.n_features)
        self._require_open()
        if not rows:
            # XGBoost has no function for the number of trees, so one row without values is scored.
            return self.leaves(np.full((1, self.n_features), np.nan))[:0]
        return self._predict_dmatrix(matrix, _LEAVES).astype(np.int32).reshape(rows, -1)

    def as_json(self) -> bytes:
        """Return the model in JSON, also if it was loaded from UBJSON."""
        self._require_open()
        length, text = ctypes.c_uint64(), ctypes.c_void_p()
        self._call(
            "XGBoosterSaveModelToBuffer", self._booster, b'{"format":"json"}', ctypes.byref(length), ctypes.byref(text)
        )
        return ctypes.string_at(text.value or 0, length.value)

    def close(self) -> None:
        """Free the model."""
        while self._idle:
            self._idle.pop().free()
        if self._booster.value is not None:
            self._call("XGBoosterFree", self._booster)
            self._booster = ctypes.c_void_p()

    def _predict(self, matrix: Matrix, config: bytes) -> Scores:
        rows = check_matrix(matrix, self.n_features)
        self._require_open()
        if rows == 0:
            return reshape_outputs(np.empty(0), 0, self.n_outputs)
        with self._borrow_arguments() as arguments:
            self._predict_dense(matrix, rows, config, arguments)
            return reshape_outputs(arguments.copy_result(rows * self.n_outputs), rows, self.n_outputs)

    def _predict_dense(self, matrix: Matrix, rows: int, config: bytes, arguments: CallArguments) -> None:
        interface = arguments.set_matrix(matrix, rows)
        self._call("XGBoosterPredictFromDense", self._booster, interface, config, arguments.proxy, *arguments.outputs)

    def _predict_dmatrix(self, matrix: Matrix, kind: int) -> Vector:
        """Return a result that XGBoost computes only from a DMatrix, flat."""
        dmatrix = ctypes.c_void_p()
        clipped = np.clip(matrix, -_LARGEST, _LARGEST)
        self._call("XGDMatrixCreateFromDense", array_interface(clipped), _NEW_MATRIX, ctypes.byref(dmatrix))
        try:
            with self._borrow_arguments() as arguments:
                self._call("XGBoosterPredictFromDMatrix", self._booster, dmatrix, _CONFIG[kind], *arguments.outputs)
                return arguments.copy_result(math.prod(arguments.shape()))
        finally:
            self._call("XGDMatrixFree", dmatrix)

    @contextmanager
    def _borrow_arguments(self) -> Iterator[CallArguments]:
        """Lend call arguments that no other thread uses; there are as many as the most calls at a time."""
        try:
            arguments = self._idle.pop()
        except IndexError:
            arguments = CallArguments(self.library, self._name, self.n_features)
        try:
            yield arguments
        finally:
            self._idle.append(arguments)

    def _require_open(self) -> None:
        if self._booster.value is None:
            raise PackageError(self._name, "is closed", fix="open it again")

    def _outputs(self) -> int:
        with self._borrow_arguments() as arguments:
            # XGBoost has no function for this number, so one row without values is scored.
            self._predict_dense(np.full((1, self.n_features), np.nan), 1, _CONFIG[_MARGIN], arguments)
            return math.prod(arguments.shape())

    def _call(self, function: str, *args: object) -> None:
        self.library.call(self._name, function, *args)


_CONFIG = {
    kind: b'{"type":%d,"training":false,"iteration_begin":0,"iteration_end":0,"strict_shape":false,'
    b'"cache_id":0,"missing":NaN}' % kind
    for kind in (_VALUE, _MARGIN, _CONTRIBUTIONS, _LEAVES)
}
VALUE, MARGIN = _CONFIG[_VALUE], _CONFIG[_MARGIN]
