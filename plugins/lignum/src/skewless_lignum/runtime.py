"""Scores LightGBM, XGBoost and CatBoost models with lignum, a faster evaluator of their trees, in this process.

lignum adds the trees in the library's order and number type; the library's runtime applies its link function, because
lignum has no link for some objectives (``reg_sqrt``).
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.link import LINKS, LightGBMLink, XGBoostLink
from skewless.infra.models.runtimes.port import Matrix, RuntimeProvider, Scores, check_matrix, reshape_outputs

_INFINITE_THRESHOLD = re.compile(rb"(?m)^threshold=(?:.* )?inf\b")
_LAST_FEATURE = re.compile(rb"(?m)^max_feature_idx=(\d+)$")
_DART = re.compile(rb'"name"\s*:\s*"dart"')
_LARGEST = float(np.finfo(np.float64).max)
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FIX = "score it with its own library: set second_runtime to none"


def is_installed() -> bool:
    """Return whether lignum is installed; it is not imported."""
    return find_spec("lignum") is not None


class _CatBoostLink:
    """The link function of a CatBoost model."""

    def __init__(self, content: bytes, name: str) -> None:
        from skewless_catboost.json_model import read_model  # noqa: PLC0415 - only for such models, whose plug-in it is

        model = read_model(content, name)
        self._loss = model.loss
        self.n_features, self.n_outputs = model.n_features, model.n_outputs

    def scores(self, margins: Scores) -> Scores:
        """Return the predictions of margins."""
        from skewless_catboost.trees import link_scores  # noqa: PLC0415 - as above

        return link_scores(self._loss, margins)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


_Link = LightGBMLink | XGBoostLink | _CatBoostLink
_LINKS: Mapping[str, Callable[[bytes, str], _Link]] = {**LINKS, "catboost": _CatBoostLink}
ALGORITHMS = tuple(_LINKS)


class LignumRuntime:
    """A model scored by lignum; see Runtime for the contract.

    LightGBM writes ``inf`` as the threshold of a split between numbers and missing values. lignum 0.3 sends +inf to the
    other side of such a split than LightGBM; the greatest float64 goes to the same side in both, and to the side of
    +inf at every other threshold. So a model with such a threshold gets its rows with that number for +inf.

    Args:
        algorithm: the library that trained the model, one of ``ALGORITHMS``.
        path: path of its model file.
        compiled: compile the trees with the system's C compiler, which takes seconds, in a private folder.

    Raises:
        PackageError: lignum or the library is missing, lignum does not support the model, or it cannot be compiled.
    """

    def __init__(self, algorithm: str, path: Path, *, compiled: bool = False) -> None:
        self._name = f"model file {path.name!r}"
        self._model: Any = None
        content = path.read_bytes()
        self._replaces_infinity = algorithm == "lightgbm" and _INFINITE_THRESHOLD.search(content) is not None
        self._link: _Link | None = _LINKS[algorithm](content, self._name)
        try:
            self._model, version = _load(algorithm, path, self._name)
            if compiled:
                _compile(self._model, self._name)
        except PackageError:
            self.close()
            raise
        self.runtime_id = f"lignum-compiled-{version}" if compiled else f"lignum-{version}"
        self.n_features, self.n_outputs = _count_features(content, self._link), self._link.n_outputs

    def margin(self, matrix: Matrix) -> Scores:
        """Return raw margins, bit-equal to the training library's."""
        rows = check_matrix(matrix, self.n_features)
        self._require_open()
        if not rows:
            return reshape_outputs(np.empty(0), 0, self.n_outputs)
        if self._replaces_infinity:
            matrix = np.minimum(matrix, _LARGEST)  # NaN stays
        # One thread, the caller's; lignum releases the GIL.
        margins: NDArray[np.float64] = self._model.predict(matrix, raw_score=True, n_jobs=1, strategy="serial")
        return reshape_outputs(margins.reshape(-1), rows, self.n_outputs)

    def score(self, matrix: Matrix) -> Scores:
        """Return predictions, with the training library's link."""
        return self._require_open().scores(self.margin(matrix))

    def contributions(self, matrix: Matrix) -> Scores:
        """Raise RequestError: lignum has no TreeSHAP."""
        check_matrix(matrix, self.n_features)
        raise RequestError(self._name, "has no contributions on lignum", fix="use the library's own runtime")

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        link, self._link, self._model = self._link, None, None
        if link is not None:
            link.close()

    def _require_open(self) -> _Link:
        if self._link is None:
            raise PackageError(self._name, "is closed", fix="open it again")
        return self._link


def _count_features(content: bytes, link: _Link) -> int:
    """Return the width of the matrix; lignum knows only the columns that it reads, and none of a dart model."""
    if not isinstance(link, LightGBMLink):
        return link.n_features
    found = _LAST_FEATURE.search(content)
    return int(found[1]) + 1 if found else 0


def _load(algorithm: str, path: Path, name: str) -> tuple[Any, str]:
    """Return lignum's model and version."""
    try:
        import lignum  # noqa: PLC0415 - part of the extra `lignum`
    except ImportError as error:
        fix = "pip install 'skewless[lignum]'"
        raise PackageError("runtime 'lignum'", f"cannot be imported: {error}", fix=fix) from error
    if algorithm == "xgboost" and _DART.search(path.read_bytes()):
        # lignum 0.3 opens it as a model without trees.
        raise PackageError(name, "has trees with weights (booster dart)", fix=_FIX)
    try:
        model = lignum.load(str(path), format=algorithm)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:80]
        raise PackageError(name, "is not supported by lignum", value=reason, fix=_FIX) from error
    if model.categorical_features:  # of CatBoost
        raise PackageError(name, "has categories, which lignum reads as texts, not as codes", fix=_FIX)
    return model, lignum.__version__


def _compile(model: Any, name: str) -> None:  # noqa: ANN401 - lignum is not typed
    """Compile and load the trees; nothing of it stays on the disk."""
    with private_folder() as folder:
        try:
            # Without `work_dir` lignum runs a library that lies under a predictable name in the temporary folder.
            model.compile(work_dir=str(folder))
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:120]
            fix = "install a C compiler (cc), or set second_runtime to lignum"
            raise PackageError(name, "cannot be compiled", value=reason, fix=fix) from error


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new, empty folder in which no other user can write or replace a file; it is removed at the end.

    Raises:
        PackageError: other users may rename the folders of the temporary folder, or the new one is not private.
    """
    with tempfile.TemporaryDirectory(prefix="skewless-") as name:
        folder = Path(name).resolve()
        own, parent = folder.lstat(), folder.parent.stat()
        is_private = stat.S_ISDIR(own.st_mode) and own.st_uid == os.geteuid() and not own.st_mode & 0o077
        if not is_private or any(folder.iterdir()):
            raise PackageError(f"folder {folder}", "is not private", fix="choose another TMPDIR")
        if parent.st_mode & _OTHERS_MAY_WRITE and not parent.st_mode & stat.S_ISVTX:
            fix = f"run chmod +t {folder.parent}, or choose another TMPDIR"
            raise PackageError(f"folder {folder.parent}", "lets other users replace its folders", fix=fix)
        yield folder


def _find_problem() -> str | None:
    return None if is_installed() else "is not installed: pip install 'skewless[lignum]'"


def _provide(*, compiled: bool) -> RuntimeProvider:
    def open_model(algorithm: str, path: Path) -> LignumRuntime:
        return LignumRuntime(algorithm, path, compiled=compiled)

    name = "lignum-compiled" if compiled else "lignum"
    return RuntimeProvider(name=name, algorithms=ALGORITHMS, open=open_model, find_problem=_find_problem)


PROVIDER = _provide(compiled=False)
COMPILED_PROVIDER = _provide(compiled=True)
