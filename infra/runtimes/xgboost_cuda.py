"""XGBoost on a GPU through its C API: rows go to the device, margins come back; the link is applied here."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.runtimes.link import XGBoostLink
from skewless.infra.runtimes.port import Matrix, Scores, by_output, check_matrix
from skewless.infra.runtimes.xgboost_capi import MARGIN, XGBoostRuntime, load_library


def is_built_in() -> bool:
    """Say whether the installed XGBoost can score on a GPU: it is built with CUDA, and cupy is there."""
    from importlib.util import find_spec  # noqa: PLC0415 - asked once, where a GPU is there

    return find_spec("cupy") is not None and has_cuda()


def has_cuda() -> bool:
    """Say whether the installed XGBoost is built with CUDA (``xgboost`` on Linux, not ``xgboost-cpu``).

    Raises:
        PackageError: XGBoost is not installed.
    """
    library = load_library().handle
    said = ctypes.c_char_p()
    library.XGBuildInfo(ctypes.byref(said))
    return bool(json.loads(said.value or b"{}").get("USE_CUDA"))


class XGBoostCudaRuntime(XGBoostRuntime):
    """An XGBoost model on a GPU; see Runtime for the contract.

    XGBoost adds the trees to each other there and then to the base, on the CPU each to the base, so margins may be
    off by a rounding of float32.

    Args:
        model: JSON or UBJSON of the model.
        name: what errors call it.

    Raises:
        PackageError: cupy or XGBoost is missing, or there is no device.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self._link: XGBoostLink | None = None
        super().__init__(model, name)
        self.runtime_id = f"xgboost-cuda-{self._library.version}"
        try:
            self._cupy = _cupy(name)
            self._link = XGBoostLink(self.as_json(), name)
            predict = self._library.handle.XGBoosterPredictFromCudaArray
            predict.argtypes = self._library.handle.XGBoosterPredictFromDense.argtypes
            self._call("XGBoosterSetParam", self._booster, b"device", b"cuda")
        except PackageError:
            self.close()
            raise

    def margin(self, matrix: Matrix) -> Scores:
        """Return the margins that XGBoost computes on the device."""
        rows = check_matrix(matrix, self.n_features)
        self._require_open()
        if rows == 0:
            return by_output(np.empty(0), 0, self.n_outputs)
        given = self._cupy.asarray(matrix)
        interface = json.dumps(given.__cuda_array_interface__).encode()
        with self._cells() as cells:
            self._call("XGBoosterPredictFromCudaArray", self._booster, interface, MARGIN, cells.proxy, *cells.answer)
            found = np.empty(rows * self.n_outputs, dtype=np.float32)
            runtime = self._cupy.cuda.runtime
            runtime.deviceSynchronize()
            runtime.memcpy(found.ctypes.data, cells.result, found.nbytes, runtime.memcpyDeviceToHost)
        return by_output(found.astype(np.float64), rows, self.n_outputs)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, by the link of XGBoost on the CPU."""
        margins = self.margin(matrix)
        if self._link is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._link.scores(margins)

    def close(self) -> None:
        """Free the model."""
        super().close()
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _cupy(name: str) -> Any:  # noqa: ANN401 - cupy has no types
    try:
        import cupy  # noqa: PLC0415 - the extra `gpu` brings it

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # whatever the driver makes of it
        raise PackageError(name, f"cannot be opened on a GPU: {error}", fix="see `skewless doctor`") from error
    return cupy
