"""LightGBM and XGBoost models on a GPU, or on the CPU, through nvForest: the trees there, their sum and link as here.

nvForest itself adds trees in an order of its own, so its margins are off by a rounding; each tree's leaf is exact.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.link import Link, XGBoostLink, open_link
from skewless.infra.runtimes.ordered_sum import Floats, OrderedSum
from skewless.infra.runtimes.port import Matrix, Scores, by_output, check_matrix

ScoringTarget = Literal["cpu", "gpu"]
# Leaves of all trees and of the rows of one step: on the CPU what its caches hold.
_LEAVES_BYTES = 1 << 21
_DEVICE_LEAVES_BYTES = 1 << 28
Rewrite = Callable[[Matrix], Matrix]
"""From a matrix to one of the same shape, float64 or float32, on which both runtimes agree; the first is left alone."""
# LightGBM leaves out what is this close to zero, as if it were zero (kZeroThreshold, a float32).
_ZERO = float(np.float32(1e-35))
_LARGEST = float(np.finfo(np.float64).max)
_UNKNOWN = -1.0
_CODES_LIGHTGBM = 2.0**31
_CODES_XGBOOST = 2.0**24


def is_installed() -> bool:
    """Say whether nvForest is there; it is not imported."""
    return find_spec("nvforest") is not None and find_spec("treelite") is not None


class NvForestRuntime:
    """A model scored by nvForest; see Runtime for the contract, but that it holds the GIL while it works.

    Args:
        algorithm: the library that trained the model: ``lightgbm`` or ``xgboost``.
        path: of its model file.
        place: where the trees are walked.

    Raises:
        PackageError: nvForest or the library is missing, or the model is of a kind that it does not take.
    """

    def __init__(self, algorithm: str, path: Path, place: ScoringTarget) -> None:
        self._name = f"model file {path.name!r}"
        self._place: ScoringTarget = place
        self._forest: Any = None
        model = path.read_bytes()
        trees = _trees(algorithm, model, self._name)
        self._link: Link | None = open_link(algorithm, model, self._name)
        try:
            self._forest, version = _open(algorithm, path, place, self._name)
        except PackageError:
            self.close()
            raise
        self.runtime_id = f"nvforest-{place}-{version}"
        self._rewrite = rewrite_for(algorithm, trees.categorical)
        base = self._link.base if isinstance(self._link, XGBoostLink) else np.zeros(trees.n_outputs)
        self._sum = OrderedSum(trees.output_of, base)
        self.n_features, self.n_outputs, self._n_trees = trees.n_features, trees.n_outputs, len(trees.output_of)

    def margin(self, matrix: Matrix) -> Scores:
        """Return raw margins, with the bits of the library that trained."""
        n = check_matrix(matrix, self.n_features)
        self._require_open()
        limit = _LEAVES_BYTES if self._place == "cpu" else _DEVICE_LEAVES_BYTES
        step = max(1, limit // (8 * self._n_trees))
        sums = [self._sums(matrix[start : start + step]) for start in range(0, n, step)]
        flat = np.concatenate(sums).astype(np.float64) if sums else np.empty(0)
        return by_output(flat.reshape(-1), n, self.n_outputs)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, by the link of the library that trained."""
        link = self._require_open()
        return link.scores(self.margin(matrix))

    def contributions(self, matrix: Matrix) -> Scores:
        """Refuse: nvForest has no TreeSHAP."""
        check_matrix(matrix, self.n_features)
        raise RequestError(self._name, "has no contributions on nvForest", fix="ask the library's own runtime")

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        link, self._link, self._forest = self._link, None, None
        if link is not None:
            link.close()

    def _sums(self, rows: Matrix) -> Floats:
        leaves = self._forest.predict_per_tree(self._rewrite(rows))
        leaves = leaves.reshape(len(rows), self._n_trees)
        return self._sum.on_host(leaves) if self._place == "cpu" else self._sum.on_device(leaves)

    def _require_open(self) -> Link:
        if self._link is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._link


@dataclass(frozen=True, kw_only=True)
class _Trees:
    """What is to be known of a model's trees to add up their leaves."""

    n_features: int
    n_outputs: int
    output_of: Sequence[int]
    categorical: Sequence[int]


def _trees(algorithm: str, model: bytes, name: str) -> _Trees:
    try:
        return {"lightgbm": _of_lightgbm, "xgboost": _of_xgboost}[algorithm](model)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise PackageError(
            name, "is of a kind that nvForest does not take", value=_short(error), fix="score it by its own library"
        ) from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:80]


def _of_lightgbm(model: bytes) -> _Trees:
    head, _, rest = model.decode().partition("\nTree=0\n")
    said: Mapping[str, str] = dict(re.findall(r"(?m)^(\w+)=(.*)$", head))
    infos = said["feature_infos"].split(" ")
    outputs = int(said["num_tree_per_iteration"])
    n_trees = 1 + len(re.findall(r"(?m)^Tree=\d+$", rest))
    if re.search(r"(?m)^is_linear=1$", rest):
        message = "its leaves are linear"
        raise ValueError(message)
    return _Trees(
        n_features=int(said["max_feature_idx"]) + 1,
        n_outputs=outputs,
        output_of=[tree % outputs for tree in range(n_trees)],
        categorical=[at for at, info in enumerate(infos) if not info.startswith(("[", "none"))],
    )


def _of_xgboost(model: bytes) -> _Trees:
    learner: Mapping[str, Any] = json.loads(model)["learner"]
    shape = learner["learner_model_param"]
    booster = learner["gradient_booster"]
    # XGBoost up to 3.3 wraps weighted trees in a booster of their own, later ones keep the weights beside the trees.
    if booster["name"] != "gbtree" or any(weight != 1.0 for weight in booster["model"].get("weight_drop", ())):
        message = "its trees are not only added up"
        raise ValueError(message)
    types = learner.get("feature_types") or []
    return _Trees(
        n_features=int(shape["num_feature"]),
        n_outputs=max(1, int(shape["num_class"])),
        output_of=booster["model"]["tree_info"],
        categorical=[at for at, kind in enumerate(types) if kind == "c"],
    )


def _open(algorithm: str, path: Path, place: ScoringTarget, name: str) -> tuple[Any, str]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a runtime uses one core; nvForest asks only when it is imported
    try:
        import nvforest  # noqa: PLC0415 - 0.5 s and 220 MB: only where it is used
        import treelite  # noqa: PLC0415

        if algorithm == "lightgbm":
            forest = treelite.frontend.load_lightgbm_model(path)
        else:
            forest = treelite.frontend.load_xgboost_model(path, format_choice="json")
        precision = "double" if algorithm == "lightgbm" else "single"
        opened = nvforest.load_from_treelite_model(forest, device=place, precision=precision)
    except Exception as error:  # whatever the driver or a broken installation makes of it
        raise PackageError(
            name, f"cannot be opened by nvForest: {error}", fix="see `skewless doctor`, or leave it to its own library"
        ) from error
    return opened, str(nvforest.__version__)


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
