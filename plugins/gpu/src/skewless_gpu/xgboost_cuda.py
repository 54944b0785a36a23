"""Scores XGBoost models on a GPU through the C API; the device computes margins, the CPU applies the link."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any, Self

import numpy as np

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.link import XGBoostLink
from skewless.infra.models.runtimes.port import Matrix, RuntimeProvider, Scores, check_matrix, reshape_outputs
from skewless.infra.models.runtimes.xgboost_capi import MARGIN, XGBoostRuntime, load_library
from skewless_gpu.cuda import driver


def is_built_in() -> bool:
    """Return whether XGBoost can score on a GPU: it is built with CUDA, and cupy is installed."""
    from importlib.util import find_spec  # noqa: PLC0415 - only on machines with a GPU

    return find_spec("cupy") is not None and has_cuda()


def has_cuda() -> bool:
    """Return whether XGBoost is built with CUDA (``xgboost`` on Linux, not ``xgboost-cpu``).

    Raises:
        PackageError: XGBoost is not installed.
    """
    library = load_library().handle
    build_info = ctypes.c_char_p()
    library.XGBuildInfo(ctypes.byref(build_info))
    return bool(json.loads(build_info.value or b"{}").get("USE_CUDA"))


class XGBoostCudaRuntime(XGBoostRuntime):
    """An XGBoost model on a GPU; see Runtime for the contract.

    On the GPU, XGBoost sums the trees first and then adds the base; on the CPU it adds each tree to the base. So
    margins may differ by float32 rounding.

    Args:
        model: JSON or UBJSON of the model.
        name: its name in errors.

    Raises:
        PackageError: cupy or XGBoost is missing, or no device is available.
    """

    def __init__(self, model: bytes, name: str) -> None:
        # Before the parent's constructor, which calls `close` if it fails.
        self._link: XGBoostLink | None = None
        super().__init__(model, name)
        self.runtime_id = f"xgboost-cuda-{self.library.version}"
        try:
            self._cupy = _cupy(name)
            self._link = XGBoostLink(self.as_json(), name)
            predict = self.library.handle.XGBoosterPredictFromCudaArray
            predict.argtypes = self.library.handle.XGBoosterPredictFromDense.argtypes
            self._call("XGBoosterSetParam", self._booster, b"device", b"cuda")
        except PackageError:
            self.close()
            raise

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Load a model file."""
        return cls(path.read_bytes(), f"model file {path.name!r}")

    def margin(self, matrix: Matrix) -> Scores:
        """Return the margins of XGBoost on the device."""
        rows = check_matrix(matrix, self.n_features)
        self._require_open()
        if rows == 0:
            return reshape_outputs(np.empty(0), 0, self.n_outputs)
        device_matrix = self._cupy.asarray(matrix)
        # The interface has only the address, so `device_matrix` must live until the device has finished.
        interface = json.dumps(device_matrix.__cuda_array_interface__).encode()
        with self._borrow_arguments() as arguments:
            self._call(
                "XGBoosterPredictFromCudaArray", self._booster, interface, MARGIN, arguments.proxy, *arguments.outputs
            )
            values = np.empty(rows * self.n_outputs, dtype=np.float32)
            runtime = self._cupy.cuda.runtime
            runtime.deviceSynchronize()
            runtime.memcpy(values.ctypes.data, arguments.result, values.nbytes, runtime.memcpyDeviceToHost)
        return reshape_outputs(values.astype(np.float64), rows, self.n_outputs)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, with XGBoost's link on the CPU."""
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
        import cupy  # noqa: PLC0415 - part of the extra `gpu`

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a GPU driver can raise any type
        raise PackageError(name, f"cannot be opened on a GPU: {error}", fix="run `skewless doctor`") from error
    return cupy


def _find_problem() -> str | None:
    if (problem := driver().problem) is not None:
        return problem
    return None if is_built_in() else "XGBoost with CUDA or cupy is not installed: pip install 'skewless[gpu]'"


def _open_model(_: str, path: Path) -> XGBoostCudaRuntime:
    return XGBoostCudaRuntime.from_file(path)


def can_train() -> bool:
    """Return whether XGBoost can train on a GPU: it is built with CUDA, and the driver has a device."""
    return driver().problem is None and is_cuda_built()


def is_cuda_built() -> bool:
    """Return whether XGBoost is installed, and built with CUDA."""
    try:
        return has_cuda()
    except PackageError:
        return False


PROVIDER = RuntimeProvider(
    name="xgboost-cuda",
    algorithms=("xgboost",),
    open=_open_model,
    find_problem=_find_problem,
    for_device=True,
    can_train=can_train,
)
