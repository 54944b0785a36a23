"""The runtimes that the setting ``second_runtime`` selects as ``gpu`` and ``cpu``."""

from __future__ import annotations

from skewless_gpu import nvforest, xgboost_cuda

GPU = (nvforest.GPU_PROVIDER, xgboost_cuda.PROVIDER)
CPU = nvforest.CPU_PROVIDER
