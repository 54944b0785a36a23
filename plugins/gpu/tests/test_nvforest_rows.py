"""Values that a library takes for others are written as those; all others keep every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.port import Matrix
from skewless_gpu.nvforest import NvForestRuntime, find_rewrite

NAN = float("nan")
LARGEST = float(np.finfo(np.float64).max)
ZERO = float(np.float32(1e-35))


def rewritten(algorithm: str, categorical: list[int], *values: float) -> list[float]:
    """Rewrite one column, beside one that is never categorical."""
    matrix = np.array([[value, 0.5] for value in values])
    kept = matrix.tobytes()
    found = find_rewrite(algorithm, categorical)(matrix)
    assert matrix.tobytes() == kept
    assert found.shape == matrix.shape
    assert found.flags.c_contiguous
    return [float(value) for value in found[:, 0]]


def bits(values: list[float]) -> list[str]:
    return [value.hex() for value in values]


def test_lightgbm_reads_the_smallest_as_zero_and_infinity_as_the_largest() -> None:
    above = float(np.nextafter(ZERO, 1.0))
    given = [ZERO, -ZERO, above, -above, 5e-324, -0.0, float("inf"), float("-inf"), NAN]
    assert bits(rewritten("lightgbm", [], *given)) == bits(
        [0.0, 0.0, above, -above, 0.0, 0.0, LARGEST, float("-inf"), NAN]
    )


def test_lightgbm_cuts_codes_to_integers_and_knows_none_below_zero_or_beyond_int32() -> None:
    given = [0.0, -0.0, 0.5, 2.999, 3.0, -0.5, -0.999, -1.0, -7.0, 2.0**31 - 1, 2.0**31, 1e300, float("inf"), NAN]
    assert bits(rewritten("lightgbm", [0], *given)) == bits(
        [0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, -1.0, -1.0, 2.0**31 - 1, -1.0, -1.0, -1.0, NAN]
    )
    assert rewritten("lightgbm", [0], float("-inf")) == [-1.0]


def test_xgboost_compares_float32_and_knows_no_code_below_zero_or_beyond_its_integers() -> None:
    assert bits(rewritten("xgboost", [], 0.1, 1e300, -1e300, -0.0, NAN)) == bits(
        [float(np.float32(0.1)), float("inf"), float("-inf"), -0.0, NAN]
    )
    given = [0.0, 2.999, 3.0, -0.5, -1.0, 2.0**24 - 1, 2.0**24, 1e300, NAN]
    assert bits(rewritten("xgboost", [0], *given)) == bits([0.0, 2.0, 3.0, -1.0, -1.0, 2.0**24 - 1, -1.0, -1.0, NAN])
    assert find_rewrite("xgboost", [])(np.zeros((1, 1))).dtype == np.float32


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost"])
@given(matrix=arrays(np.float64, (5, 3), elements=st.floats()))
def test_rewriting_twice_changes_nothing_more_and_touches_no_missing_value(algorithm: str, matrix: Matrix) -> None:
    rewrite = find_rewrite(algorithm, [1])
    once = rewrite(matrix)
    assert rewrite(once.astype(np.float64)).tobytes() == once.tobytes()
    assert np.array_equal(np.isnan(once), np.isnan(matrix))


@given(matrix=arrays(np.float64, (5, 3), elements=st.floats(1e-30, 1e300) | st.floats(-1e300, -1e-30)))
def test_plain_numbers_keep_their_bits_for_lightgbm(matrix: Matrix) -> None:
    assert find_rewrite("lightgbm", [])(matrix).tobytes() == matrix.tobytes()


def test_another_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"{}")
    with pytest.raises(PackageError, match="sklearn"):
        NvForestRuntime("sklearn", path, "cpu")
