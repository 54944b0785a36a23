"""Rows of one query lie side by side before a ranking model is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skewless.contract.errors import SourceError
from skewless.training.stored_matrix import read_batches
from skewless.training.trainers.port import Queries, TrainingSet

ROWS = TrainingSet(
    matrix=np.arange(5.0)[:, None],
    labels=np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
    feature_names=("a",),
    weights=np.array([2.0, 1.0, 2.0, 1.0, 3.0]),
    groups=np.array([4, 0, 4, 0, 9]),
)


def test_rows_are_sorted_by_group_and_keep_their_order_within() -> None:
    queries = Queries.of(ROWS)
    assert queries.rows.labels.tolist() == [1.0, 3.0, 0.0, 2.0, 4.0]
    (matrix,) = read_batches(queries.rows.matrix)
    assert matrix[:, 0].tolist() == [1.0, 3.0, 0.0, 2.0, 4.0]
    assert queries.sizes.tolist() == [2, 2, 1]
    assert ROWS.labels.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_group_has_the_weight_of_its_rows() -> None:
    weights = Queries.of(ROWS).weights()
    assert weights is not None
    assert weights.tolist() == [1.0, 2.0, 3.0]
    assert Queries.of(replace(ROWS, weights=None)).weights() is None
    uneven = replace(ROWS, weights=np.array([2.0, 1.0, 2.5, 1.0, 3.0]))
    with pytest.raises(SourceError, match="differ within a group"):
        Queries.of(uneven).weights()


def test_rows_without_groups_are_refused() -> None:
    with pytest.raises(SourceError, match="training groups"):
        Queries.of(replace(ROWS, groups=None))
