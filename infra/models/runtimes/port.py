"""The port of runtimes, which score models, and of the packages that provide them.

An entry point of the group ``skewless.runtimes`` names a ``RuntimeProvider``, or several as a tuple. Its name is an
algorithm, whose own runtime it then is, or a value of the setting ``second_runtime``, with which it is tried in
addition to the own runtimes of its algorithms. Our own names (``lightgbm`` and ``xgboost``) cannot be registered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import RequestError

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Leaves = NDArray[np.int32]
Scores = NDArray[np.float64]
"""Shape ``(n,)`` for a model with one output, ``(n, k)`` for k outputs; C-contiguous."""


class Runtime(Protocol):
    """A loaded model.

    A matrix is ``(n, n_features)`` float64, C-contiguous; NaN is missing; ``n = 0`` is allowed. Another layout, type or
    width raises RequestError and is never copied or cast, because even a cast to float32 changes scores. A row's result
    does not depend on the other rows. Results belong to the caller.

    Calls block, use one core, release the GIL, and may come from several threads at once. The owner
    calls ``close`` when no call is in flight; later calls raise PackageError.
    """

    @property
    def runtime_id(self) -> str:
        """Return the library, its interface and its version, for example ``lightgbm-capi-4.7.0``."""
        ...

    @property
    def n_features(self) -> int:
        """Return the width of the matrix."""
        ...

    @property
    def n_outputs(self) -> int:
        """Return the numbers per row: the number of classes of a multiclass model, otherwise 1."""
        ...

    def margin(self, matrix: Matrix) -> Scores:
        """Return raw margins, float64, bit-equal to the training library's."""
        ...

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, float64: probabilities (binary, multiclass), a value, or a rank score."""
        ...

    def contributions(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return the contribution of each feature to the margin, by the library's own TreeSHAP.

        The last column is the bias; a row sums up to its margin, except for rounding.

        Returns:
            ``(n, n_features + 1)`` float64; of k outputs ``(n, k, n_features + 1)``.

        Raises:
            RequestError: this kind of model has no contributions.
        """
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...


def _has_no_problem() -> None:
    return None


def _cannot_train() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class RuntimeProvider:
    """Opens the models of some algorithms with one runtime.

    The import of the module that holds it must be quick, and load no library of models: a server imports it, even if
    no model uses it.

    Args:
        name: name of the runtime until a model is open.
        algorithms: the algorithms (``ModelSpec.algorithm``) whose models it may open.
        open: returns the model of an algorithm and a file, loaded in this process and ready for any thread. It raises
            PackageError if it does not support the model, or if something is missing on this machine. The runtime is
            certified and measured before it scores a request, so it needs no other guarantee.
        find_problem: returns why no model can be opened on this machine, for example a missing package; None: one can.
            It is called for each model, before ``open``, and must be quick.
        for_device: it is not tried for a model whose spec has ``device="cpu"``.
        can_train: returns whether its algorithms can also be trained on the device. It raises nothing.
    """

    name: str
    algorithms: Collection[str]
    open: Callable[[str, Path], Runtime]
    find_problem: Callable[[], str | None] = _has_no_problem
    for_device: bool = False
    can_train: Callable[[], bool] = _cannot_train


def own_provider(algorithm: str, load: Callable[[bytes, str], Runtime]) -> RuntimeProvider:
    """Return the provider of an algorithm's own runtime.

    Args:
        algorithm: the algorithm.
        load: returns the model of a file's bytes; its second argument is its name in errors.
    """

    def open_model(_: str, path: Path) -> Runtime:
        return load(path.read_bytes(), f"model file {path.name!r}")

    return RuntimeProvider(name=algorithm, algorithms=(algorithm,), open=open_model)


@runtime_checkable
class LeafRuntime(Protocol):
    """A Runtime that finds the leaf of each tree, as those of LightGBM and XGBoost do."""

    def leaves(self, matrix: Matrix) -> Leaves:
        """Return the index of the leaf that each row reaches in each tree, equal to the training library's.

        Trees are in the order of training; of k outputs, each iteration has k trees. An index is the library's: of
        LightGBM the number of the leaf among the tree's leaves, of XGBoost that of the node among its nodes.

        Returns:
            ``(n, n_trees)`` int32.

        Raises:
            RequestError: this kind of model has no trees.
        """
        ...


def find_leaves(runtime: Runtime, matrix: Matrix) -> Leaves:
    """Return the leaves of a runtime; see ``LeafRuntime``.

    Raises:
        RequestError: the runtime does not find them.
    """
    if not isinstance(runtime, LeafRuntime):
        raise RequestError(
            f"runtime {runtime.runtime_id!r}", "has no leaf indices", fix="use a model of lightgbm or xgboost"
        )
    return runtime.leaves(matrix)


_FLOAT64 = np.dtype(np.float64)


def check_matrix(matrix: Matrix, n_features: int) -> int:
    """Check that a matrix can be scored without a copy; return its number of rows.

    Raises:
        RequestError: it is not float64, is not C-contiguous, or has another width.
    """
    shape = matrix.shape
    if shape[1:] != (n_features,):
        raise RequestError(
            "matrix", "does not fit the model's features", value=str(shape), fix=f"give (n, {n_features})"
        )
    if matrix.dtype != _FLOAT64:
        raise RequestError("matrix", "is not float64", value=str(matrix.dtype), fix="keep values float64 end to end")
    flags = matrix.flags
    if not (flags.c_contiguous and flags.aligned):
        raise RequestError(
            "matrix", "is not C-contiguous", value=str(matrix.strides), fix="build it row by row, or copy it once"
        )
    rows: int = shape[0]
    return rows


def reshape_outputs(values: Scores, rows: int, n_outputs: int, *rest: int) -> Scores:
    """Return a library's flat result as ``(rows, ...)``, for several outputs as ``(rows, n_outputs, ...)``.

    >>> reshape_outputs(np.zeros(6), 2, 3).shape, reshape_outputs(np.zeros(2), 2, 1).shape
    ((2, 3), (2,))
    >>> reshape_outputs(np.zeros(8), 2, 1, 4).shape
    (2, 4)
    """
    return values.reshape((rows, *rest) if n_outputs == 1 else (rows, n_outputs, *rest))
