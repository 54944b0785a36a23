"""Leaves are added from the first tree to the last, as a plain loop does, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skewless_gpu.nvforest import Floats, OrderedSum


def plain(output_of: list[int], base: Floats, leaves: Floats) -> Floats:
    """Add one leaf after the other."""
    sums = np.empty((len(leaves), len(base)), dtype=base.dtype)
    for row in range(len(leaves)):
        for output in range(len(base)):
            total = base[output]
            for tree, of in enumerate(output_of):
                if of == output:
                    total = total + leaves[row, tree]
            sums[row, output] = total
    return sums


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(data=st.data())
def test_sums_have_the_bits_of_a_plain_loop(kind: type[np.floating[Any]], data: st.DataObject) -> None:
    outputs = data.draw(st.integers(1, 4))
    output_of = data.draw(st.lists(st.integers(0, outputs - 1), max_size=70))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    leaves = (rng.normal(size=(data.draw(st.integers(0, 9)), len(output_of))) * 10.0 ** rng.integers(-9, 9)).astype(
        kind
    )
    base: NDArray[Any] = rng.normal(size=outputs).astype(kind)
    found = OrderedSum(output_of, base).on_host(leaves)
    assert found.dtype == kind
    assert found.tobytes() == plain(output_of, base, leaves).tobytes()


def test_many_trees_are_not_added_in_pairs() -> None:
    """The sum of numpy differs here, so this would not pass by chance."""
    leaves = np.random.default_rng(2).normal(size=(50, 5_000))
    found = OrderedSum([0] * 5_000, np.zeros(1)).on_host(leaves)[:, 0]
    assert found.tobytes() == plain([0] * 5_000, np.zeros(1), leaves).tobytes()
    assert (found != leaves.sum(axis=1)).any()


def test_an_output_without_trees_is_its_base() -> None:
    found = OrderedSum([1, 1], np.array([0.5, 1.0, -0.0])).on_host(np.ones((2, 2)))
    assert found.tobytes() == np.array([[0.5, 3.0, -0.0]] * 2).tobytes()
