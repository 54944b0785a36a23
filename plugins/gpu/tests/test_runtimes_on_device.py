"""Runtimes on a GPU against the libraries on the CPU, on models of every kind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from plugins.gpu.tests.conftest import SHARED, algorithm_of, model_of, reference_of
from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.certification import certify, same_bits
from skewless.infra.models.runtimes.port import Matrix
from skewless_gpu.nvforest import NvForestRuntime
from skewless_gpu.xgboost_cuda import XGBoostCudaRuntime
from tests.worlds.model_cases import FEATURES, ModelCase
from tests.worlds.model_rows import odd_rows

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
XGBOOST = [kind for kind in SHARED if kind.startswith("xgboost")]
TOLERANCE = 1e-4  # of margins of float32, added in another order


def many_rows(n: int) -> Matrix:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(n, FEATURES))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


@pytest.mark.parametrize("kind", SHARED)
def test_nvforest_on_a_gpu_has_the_bits_of_the_library(kind: str, made: dict[str, ModelCase]) -> None:
    case = made[kind]
    runtime = NvForestRuntime(algorithm_of(kind), case.model_file, "gpu")
    try:
        assert runtime.runtime_id.startswith("nvforest-gpu-")
        for what, rows in odd_rows(case.thresholds):
            assert same_bits(runtime.margin(rows), case.raw(rows)).all(), what
            assert same_bits(runtime.score(rows), case.score(rows)).all(), what
        assert certify(runtime, reference_of(case)).bit_equal
    finally:
        runtime.close()


@pytest.mark.parametrize("kind", ["lightgbm multiclass", "xgboost multiclass"])
def test_more_rows_than_one_step_takes_have_the_same_bits(kind: str, made: dict[str, ModelCase]) -> None:
    case, rows = made[kind], many_rows(400_000)
    runtime = NvForestRuntime(algorithm_of(kind), case.model_file, "gpu")
    try:
        assert same_bits(runtime.margin(rows), case.raw(rows)).all()
    finally:
        runtime.close()


def test_threads_share_a_device(made: dict[str, ModelCase]) -> None:
    case, rows = made["lightgbm binary"], many_rows(5_000)
    expected = case.raw(rows)
    runtime = NvForestRuntime("lightgbm", case.model_file, "gpu")
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(runtime.margin, [rows] * 40))
        assert all(same_bits(margins, expected).all() for margins in found)
    finally:
        runtime.close()


@pytest.mark.parametrize("kind", XGBOOST)
def test_xgboost_on_a_gpu_is_off_by_roundings_at_most(kind: str, made: dict[str, ModelCase]) -> None:
    case = made[kind]
    runtime = XGBoostCudaRuntime.from_file(case.model_file)
    try:
        certificate = certify(runtime, reference_of(case), tolerance=TOLERANCE)
        assert certificate.largest_difference <= TOLERANCE
        rows = many_rows(20_000)
        np.testing.assert_allclose(runtime.margin(rows), case.raw(rows), rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(runtime.score(rows), case.score(rows), rtol=TOLERANCE, atol=TOLERANCE)
        assert same_bits(runtime.margin(rows), runtime.margin(rows)).all()
        assert runtime.margin(rows[:0]).shape[0] == 0
    finally:
        runtime.close()


@pytest.mark.parametrize("kind", ["xgboost dart", "xgboost ubj"])
def test_what_nvforest_does_not_take_xgboost_scores_on_the_gpu(kind: str, tmp_path: Path) -> None:
    case = model_of(kind, tmp_path)
    with pytest.raises(PackageError, match="not supported by nvForest"):
        NvForestRuntime("xgboost", case.model_file, "gpu")
    runtime = XGBoostCudaRuntime.from_file(case.model_file)
    try:
        assert certify(runtime, reference_of(case), tolerance=TOLERANCE).largest_difference <= TOLERANCE
    finally:
        runtime.close()
        case.runtime.close()


def test_a_model_that_reads_zero_as_missing_is_refused_by_certification(tmp_path: Path) -> None:
    case = model_of("lightgbm zero as missing", tmp_path)
    runtime = NvForestRuntime("lightgbm", case.model_file, "gpu")
    try:
        with pytest.raises(PackageError, match="differs from the library"):
            certify(runtime, reference_of(case))
    finally:
        runtime.close()
        case.runtime.close()
