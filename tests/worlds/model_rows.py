"""Rows on which runtimes differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import strategies as st

from skewless.infra.models.runtimes.certification import neighbours, reference_rows
from skewless.infra.models.runtimes.port import Matrix

FEATURES = 8
CATEGORY = 7
Thresholds = Sequence[tuple[int, float]]
_SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e300, 1e-35, -1e-35, -1.0, 2.0**31, 1e19]
_CODES = [40, 41, 63, 64, 65, 1000, 2**24 - 1, 2**24, 2**31 - 1, 2**31, -1, -0.5, 0.5, 2.999, 3, 31, 32, np.nan]


def odd_rows(thresholds: Thresholds) -> Iterator[tuple[str, Matrix]]:
    """Return matrices by what is odd about them."""
    rng = np.random.default_rng(5)
    yield "reference", reference_rows(thresholds, FEATURES, seed=7)
    edges = neighbours(np.array([value for _, value in thresholds if abs(value) < 1e100]))
    yield "beside thresholds", rng.choice(edges, (800, FEATURES))
    yield "special", rng.choice(np.array(_SPECIAL), (400, FEATURES))
    codes = rng.normal(size=(400, FEATURES))
    codes[:, CATEGORY] = rng.choice(np.array(_CODES, dtype=float), 400)
    yield "categories that no row had", codes


def any_rows(thresholds: Thresholds) -> st.SearchStrategy[Matrix]:
    """Return a few rows of any float64, thresholds, what lies beside them, special values and category codes."""
    near = st.sampled_from(np.unique(neighbours(np.array([value for _, value in thresholds]))).tolist())
    value = st.floats() | near | st.sampled_from(_SPECIAL) | st.sampled_from([float(code) for code in _CODES])
    row = st.lists(value, min_size=FEATURES, max_size=FEATURES)
    return st.lists(row, min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=np.float64))
