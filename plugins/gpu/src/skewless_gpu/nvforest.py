"""Scores LightGBM and XGBoost models with nvForest, on a GPU or the CPU.

nvForest finds each tree's leaf; this module adds the leaves in the library's order and applies the library's link.
nvForest's own sums use another order, so they differ by rounding, while each leaf is exact.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.link import LINKS, LightGBMLink, XGBoostLink
from skewless.infra.models.runtimes.port import Matrix, RuntimeProvider, Scores, check_matrix, reshape_outputs
from skewless_gpu.cuda import driver

Floats = NDArray[np.floating[Any]]

# One thread per row and output; the compiler must not reorder the additions of a thread.
_KERNEL = """
extern "C" __global__ void ordered_sum(
    const {real}* leaves, const int* trees, const int* starts, const {real}* base, {real}* sums,
    const long long rows, const int n_trees, const int n_outputs)
{{
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= rows * n_outputs) return;
    const long long row = at / n_outputs;
    const int output = (int)(at % n_outputs);
    {real} sum = base[output];
    for (int i = starts[output]; i < starts[output + 1]; ++i) sum += leaves[row * n_trees + trees[i]];
    sums[at] = sum;
}}
"""
_REAL = {np.dtype(np.float64): "double", np.dtype(np.float32): "float"}
_THREADS = 128
ForestDevice = Literal["cpu", "gpu"]
# Memory for the leaves of one step's rows; on the CPU it fits in the caches.
_CPU_LEAVES_BYTES = 1 << 21
_GPU_LEAVES_BYTES = 1 << 28
Rewrite = Callable[[Matrix], Matrix]
"""Returns a matrix of the same shape, float64 or float32, that nvForest reads as the library does; copies its input."""
# LightGBM treats values this close to zero as zero (kZeroThreshold, a float32).
_ZERO = float(np.float32(1e-35))
_LARGEST = float(np.finfo(np.float64).max)
_UNKNOWN = -1.0
_CODES_LIGHTGBM = 2.0**31
_CODES_XGBOOST = 2.0**24


class OrderedSum:
    """Adds each row's leaves to a base, from the first tree to the last, output by output.

    Args:
        output_of: per tree, the output to which it adds.
        base: start value of each output, shape ``(n_outputs,)``, in the precision of the sums.
    """

    def __init__(self, output_of: Sequence[int], base: Floats) -> None:
        self._base = base
        outputs = np.asarray(output_of)
        self._trees = [np.flatnonzero(outputs == output) for output in range(len(base))]
        self._kernel: Any = None

    def on_host(self, leaves: Floats) -> Floats:
        """Return the sums, shape ``(n, n_outputs)``, of numpy leaves of shape ``(n, n_trees)``."""
        n = len(leaves)
        sums = np.empty((n, len(self._base)), dtype=self._base.dtype)
        for output, trees in enumerate(self._trees):
            terms = np.empty((n, 1 + len(trees)), dtype=self._base.dtype)
            terms[:, 0] = self._base[output]
            terms[:, 1:] = leaves[:, trees]
            # accumulate always adds from left to right; sum adds pairwise.
            sums[:, output] = np.add.accumulate(terms, axis=1)[:, -1]
        return sums

    def on_device(self, leaves: Any) -> Floats:  # noqa: ANN401 - cupy has no types
        """Return the sums as ``on_host`` does, of cupy leaves; only the sums leave the device."""
        import cupy  # noqa: PLC0415 - part of the extra `gpu`

        if self._kernel is None:
            source = _KERNEL.format(real=_REAL[self._base.dtype])
            starts = np.cumsum([0, *map(len, self._trees)], dtype=np.int32)
            self._kernel = cupy.RawKernel(source, "ordered_sum", options=("--fmad=false",))
            self._device_arguments = tuple(
                map(cupy.asarray, (np.concatenate(self._trees).astype(np.int32), starts, self._base))
            )
        leaves = cupy.ascontiguousarray(leaves, dtype=self._base.dtype)
        n, n_outputs = len(leaves), len(self._base)
        sums = cupy.empty((n, n_outputs), dtype=self._base.dtype)
        blocks = max(1, -(-n * n_outputs // _THREADS))
        sizes = (np.int64(n), np.int32(leaves.shape[1]), np.int32(n_outputs))
        self._kernel((blocks,), (_THREADS,), (leaves, *self._device_arguments, sums, *sizes))
        host: Floats = cupy.asnumpy(sums)
        return host


def is_installed() -> bool:
    """Return whether nvForest is installed; it is not imported."""
    return find_spec("nvforest") is not None and find_spec("treelite") is not None


class NvForestRuntime:
    """A model scored by nvForest; see Runtime for the contract, except that it holds the GIL.

    Args:
        algorithm: the library that trained the model: ``lightgbm`` or ``xgboost``.
        path: path of its model file.
        device: device that evaluates the trees.

    Raises:
        PackageError: nvForest or the library is missing, or nvForest does not support the model.
    """

    def __init__(self, algorithm: str, path: Path, device: ForestDevice) -> None:
        self._name = f"model file {path.name!r}"
        self._device: ForestDevice = device
        self._forest: Any = None
        model = path.read_bytes()
        try:
            trees = {"lightgbm": _lightgbm_layout, "xgboost": _xgboost_layout}[algorithm](model)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            reason, fix = f"{type(error).__name__}: {error}"[:80], "score it with its own library"
            raise PackageError(self._name, "is not supported by nvForest", value=reason, fix=fix) from error
        self._link: LightGBMLink | XGBoostLink | None = LINKS[algorithm](model, self._name)
        try:
            self._forest, version = _load_forest(algorithm, path, device, self._name)
        except PackageError:
            self.close()
            raise
        self.runtime_id = f"nvforest-{device}-{version}"
        self._rewrite = find_rewrite(algorithm, trees.categorical)
        base = self._link.base if isinstance(self._link, XGBoostLink) else np.zeros(trees.n_outputs)
        self._sum = OrderedSum(trees.output_of, base)
        self.n_features, self.n_outputs, self._n_trees = trees.n_features, trees.n_outputs, len(trees.output_of)

    def margin(self, matrix: Matrix) -> Scores:
        """Return raw margins, bit-equal to the training library's."""
        n = check_matrix(matrix, self.n_features)
        self._require_open()
        limit = _CPU_LEAVES_BYTES if self._device == "cpu" else _GPU_LEAVES_BYTES
        # Steps of rows bound the memory for leaves: 8 bytes per row and tree.
        step = max(1, limit // (8 * self._n_trees))
        sums = [self._sums(matrix[start : start + step]) for start in range(0, n, step)]
        flat = np.concatenate(sums).astype(np.float64) if sums else np.empty(0)
        return reshape_outputs(flat.reshape(-1), n, self.n_outputs)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, with the training library's link."""
        link = self._require_open()
        return link.scores(self.margin(matrix))

    def contributions(self, matrix: Matrix) -> Scores:
        """Raise RequestError: nvForest has no TreeSHAP."""
        check_matrix(matrix, self.n_features)
        raise RequestError(self._name, "has no contributions on nvForest", fix="use the library's own runtime")

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        link, self._link, self._forest = self._link, None, None
        if link is not None:
            link.close()

    def _sums(self, rows: Matrix) -> Floats:
        leaves = self._forest.predict_per_tree(self._rewrite(rows))
        leaves = leaves.reshape(len(rows), self._n_trees)
        return self._sum.on_host(leaves) if self._device == "cpu" else self._sum.on_device(leaves)

    def _require_open(self) -> LightGBMLink | XGBoostLink:
        if self._link is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._link


@dataclass(frozen=True, kw_only=True)
class _TreeLayout:
    """The properties of a model's trees that are needed to add up their leaves."""

    n_features: int
    n_outputs: int
    output_of: Sequence[int]
    categorical: Sequence[int]


def _lightgbm_layout(model: bytes) -> _TreeLayout:
    head, _, rest = model.decode().partition("\nTree=0\n")
    header: Mapping[str, str] = dict(re.findall(r"(?m)^(\w+)=(.*)$", head))
    infos = header["feature_infos"].split(" ")
    outputs = int(header["num_tree_per_iteration"])
    n_trees = 1 + len(re.findall(r"(?m)^Tree=\d+$", rest))
    if re.search(r"(?m)^is_linear=1$", rest):
        raise ValueError("it has linear leaves")
    return _TreeLayout(
        n_features=int(header["max_feature_idx"]) + 1,
        n_outputs=outputs,
        output_of=[tree % outputs for tree in range(n_trees)],
        # Numbers have a range such as [0:1], unused features none, categories a list of codes such as 3:1:2.
        categorical=[at for at, info in enumerate(infos) if not info.startswith(("[", "none"))],
    )


def _xgboost_layout(model: bytes) -> _TreeLayout:
    learner: Mapping[str, Any] = json.loads(model)["learner"]
    shape = learner["learner_model_param"]
    booster = learner["gradient_booster"]
    # XGBoost up to 3.3 stores weighted trees (dart) in a separate booster; later versions store weights next to trees.
    if booster["name"] != "gbtree" or any(weight != 1.0 for weight in booster["model"].get("weight_drop", ())):
        raise ValueError("its trees have weights")
    types = learner.get("feature_types") or []
    return _TreeLayout(
        n_features=int(shape["num_feature"]),
        n_outputs=max(1, int(shape["num_class"])),
        output_of=booster["model"]["tree_info"],
        categorical=[at for at, kind in enumerate(types) if kind == "c"],
    )


def _load_forest(algorithm: str, path: Path, device: ForestDevice, name: str) -> tuple[Any, str]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a runtime uses one core; nvForest reads this only at import
    try:
        import nvforest  # noqa: PLC0415 - takes 0.5 s and 220 MB: only on use
        import treelite  # noqa: PLC0415

        if algorithm == "lightgbm":
            forest = treelite.frontend.load_lightgbm_model(path)
        else:
            forest = treelite.frontend.load_xgboost_model(path, format_choice="json")
        # As the library compares: LightGBM in float64, XGBoost in float32.
        precision = "double" if algorithm == "lightgbm" else "single"
        loaded = nvforest.load_from_treelite_model(forest, device=device, precision=precision)
    except Exception as error:  # a GPU driver or a broken installation can raise any type
        raise PackageError(
            name,
            f"cannot be opened by nvForest: {error}",
            fix="run `skewless doctor`, or score it with its own library",
        ) from error
    return loaded, str(nvforest.__version__)


def find_rewrite(algorithm: str, categorical: Sequence[int]) -> Rewrite:
    """Return the function that rewrites a model's rows for nvForest.

    Args:
        algorithm: the library that trained the model, ``lightgbm`` or ``xgboost``.
        categorical: columns of category codes.
    """
    return partial(_read_as_lightgbm if algorithm == "lightgbm" else _read_as_xgboost, categorical=categorical)


def _read_as_lightgbm(matrix: Matrix, categorical: Sequence[int]) -> Matrix:
    """Return the rows as LightGBM reads them.

    Infinities become the largest number. Category codes are truncated to integers; codes below 0 or beyond int32 are
    in no category set.
    """
    values = np.minimum(matrix, _LARGEST)
    values[np.abs(values) <= _ZERO] = 0.0
    for column in categorical:
        codes = values[:, column]
        is_unknown = (codes <= -1.0) | (codes >= _CODES_LIGHTGBM)
        # A code between -1 and 0 is truncated to -0.0, which the addition turns into 0.0.
        values[:, column] = np.where(is_unknown, _UNKNOWN, np.trunc(codes) + 0.0)
    return values


def _read_as_xgboost(matrix: Matrix, categorical: Sequence[int]) -> Matrix:
    """Return the rows as XGBoost reads them: float32, with codes below 0 or beyond 2^24 in no category set."""
    with np.errstate(over="ignore"):
        values = matrix.astype(np.float32)
    for column in categorical:
        codes = values[:, column]
        is_unknown = (codes < 0.0) | (codes >= _CODES_XGBOOST)
        values[:, column] = np.where(is_unknown, np.float32(_UNKNOWN), np.trunc(codes))
    return values  # type: ignore[return-value]  # float32 is what XGBoost compares


def find_problem() -> str | None:
    """Return why nvForest cannot be used; None: it is installed."""
    return None if is_installed() else "nvForest is not installed: pip install 'skewless[gpu]'"


def _find_gpu_problem() -> str | None:
    return driver().problem or find_problem()


def _provide(device: ForestDevice, find: Callable[[], str | None]) -> RuntimeProvider:
    def open_model(algorithm: str, path: Path) -> NvForestRuntime:
        return NvForestRuntime(algorithm, path, device)

    name = f"nvforest-{device}"
    return RuntimeProvider(name=name, algorithms=tuple(LINKS), open=open_model, find_problem=find, for_device=True)


GPU_PROVIDER = _provide("gpu", _find_gpu_problem)
CPU_PROVIDER = _provide("cpu", find_problem)
