"""Which matrices may be scored as they lie in memory."""

from __future__ import annotations

import numpy as np
import pytest

from skewless.contract.errors import RequestError
from skewless.infra.models.runtimes.port import Matrix, check_matrix


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_plain_matrix_passes(rows: int) -> None:
    assert check_matrix(np.zeros((rows, 3)), 3) == rows


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        (np.zeros((2, 4)), "does not fit the model"),
        (np.zeros(3), "does not fit the model"),
        (np.zeros((1, 2, 3)), "does not fit the model"),
        (np.zeros((2, 3), dtype=np.float32), "float64"),
        (np.zeros((2, 3), dtype=">f8"), "float64"),
        (np.zeros((2, 3), dtype=np.int64), "float64"),
        (np.zeros((2, 3), order="F"), "C-contiguous"),
        (np.zeros((4, 3))[::2], "C-contiguous"),
        (np.zeros((2, 6))[:, ::2], "C-contiguous"),
    ],
)
def test_another_shape_type_or_layout_is_refused(matrix: Matrix, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        check_matrix(matrix, 3)
