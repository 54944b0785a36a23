"""What one call of XGBoost's C API reads and fills in, kept from call to call."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from skewless.infra.runtimes.library import NativeLibrary
from skewless.infra.runtimes.port import Matrix, Vector


class Cells:
    """Arguments of one call at a time, made once: XGBoost parses texts and looks at the machine otherwise.

    Without a proxy matrix of ours it makes one per call, and reads the limits of the cgroup from files: 25 us.

    Args:
        library: XGBoost's.
        name: what errors call the model.
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
        self.answer = tuple(ctypes.byref(cell) for cell in (self._shape, self._dimensions, self._result))
        library.call(name, "XGProxyDMatrixCreate", ctypes.byref(self.proxy))

    def give(self, matrix: Matrix, rows: int) -> bytes:
        """Return where XGBoost finds the matrix, which the caller holds until the call is over."""
        if rows != 1:
            return array_interface(matrix)
        self._row[...] = matrix
        return self._row_text

    def begin_with(self, margins: NDArray[np.float32]) -> None:
        """Give what each row's trees are added to; it is copied. Not to be given to cells twice."""
        self._library.call(
            self._name, "XGDMatrixSetInfoFromInterface", self.proxy, b"base_margin", array_interface(margins)
        )

    def take(self, size: int) -> Vector:
        """Return a copy of XGBoost's buffer, which stands until the next call of this thread, as float64."""
        data = ctypes.string_at(self._result.value or 0, size * ctypes.sizeof(ctypes.c_float))
        return np.frombuffer(data, dtype=np.float32).astype(np.float64)

    @property
    def result(self) -> int:
        """Return where XGBoost's buffer lies."""
        return self._result.value or 0

    def shape(self) -> tuple[int, ...]:
        """Return the shape of what XGBoost last answered."""
        return tuple(self._shape[: self._dimensions.value])

    def free(self) -> None:
        """Free the proxy matrix."""
        self._library.call(self._name, "XGDMatrixFree", self.proxy)


def array_interface(array: Matrix | NDArray[np.float32]) -> bytes:
    """Return an array of one or two dimensions in numpy's array interface, as JSON."""
    shape = ",".join(map(str, array.shape))
    text = f'{{"data":[{array.ctypes.data},true],"shape":[{shape}],"typestr":"{array.dtype.str}","version":3}}'
    return text.encode()
