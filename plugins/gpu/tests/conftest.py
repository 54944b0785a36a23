"""What the tests on a GPU share: the device, models of every kind, and a device whose memory is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skewless.infra.models.runtimes.certification import Reference, reference_rows
from skewless_gpu import nvforest, xgboost_cuda
from skewless_gpu.cuda import Device, driver
from tests.worlds.model_cases import FEATURES, MAKERS, ModelCase

_LEFT = 32 * 2**20
_PIECE = 2**20
_OTHERS = {"lightgbm zero as missing", "xgboost dart", "xgboost ubj"}
# nvForest is never tried for CatBoost.
SHARED = sorted(kind for kind in MAKERS if kind not in _OTHERS and not kind.startswith("catboost"))


@pytest.fixture(scope="session")
def device() -> Device:
    """The first GPU; where there is none the test is skipped, where something is not installed it fails."""
    found = driver()
    if found.problem is not None:
        pytest.skip(found.problem)
    assert nvforest.is_installed(), "nvForest is missing: pip install 'skewless[gpu]'"
    assert xgboost_cuda.is_built_in(), "XGBoost with CUDA or cupy is missing: pip install 'skewless[gpu]'"
    return found.devices[0]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModelCase]]:
    """Models that nvForest and the libraries score alike, by kind."""
    cases = {kind: MAKERS[kind](tmp_path_factory.mktemp("model")) for kind in SHARED}
    yield cases
    for case in cases.values():
        case.runtime.close()


def algorithm_of(kind: str) -> str:
    return kind.split(maxsplit=1)[0]


def reference_of(case: ModelCase) -> Reference:
    rows = reference_rows(case.thresholds, FEATURES, seed=7)
    return Reference(rows, case.raw(rows), case.score(rows))


def model_of(kind: str, folder: Path) -> ModelCase:
    return MAKERS[kind](folder)


@contextmanager
def little_memory() -> Iterator[None]:
    """Take the device's memory but for a little, until the block ends."""
    import cupy  # noqa: PLC0415 - only where there is a GPU

    cupy.get_default_memory_pool().free_all_blocks()
    taken: list[Any] = []
    try:
        size = cupy.cuda.runtime.memGetInfo()[0] - _LEFT
        while size >= _PIECE:
            try:
                taken.append(cupy.cuda.runtime.malloc(size))
                size = cupy.cuda.runtime.memGetInfo()[0] - _LEFT
            except cupy.cuda.runtime.CUDARuntimeError:
                size //= 2  # memory lies in pieces
        yield
    finally:
        for address in taken:
            cupy.cuda.runtime.free(address)
