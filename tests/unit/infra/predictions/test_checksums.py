"""A checksum tells any altered bit of a vector and its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skewless.infra.records.predictions.record import checksums

BITS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 63)), min_size=1, max_size=6, unique=True)
WORDS = arrays(np.uint64, 12, elements=st.integers(0, 2**64 - 1))


@given(words=WORDS, flips=BITS)
def test_flipped_bits(words: np.ndarray, flips: list[tuple[int, int]]) -> None:
    other = words.copy()
    for place, bit in flips:
        other[place] ^= np.uint64(1 << bit)
    rows = np.stack([words, other]).view(np.float64)
    left, right = checksums(rows[:, :10], rows[:, 10], rows[:, 11:])
    alike = np.array_equal(rows[0].view(np.uint64), rows[1].view(np.uint64)) or _same(rows[0], rows[1])
    assert (left == right) == alike


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    bits = left.view(np.uint64) == right.view(np.uint64)
    return bool((bits | (np.isnan(left) & np.isnan(right))).all())


def test_a_row_has_one_checksum_whatever_stands_beside_it() -> None:
    rows = np.random.default_rng(1).random((50, 7))
    together = checksums(rows[:, :6], rows[:, 6])
    alone = [int(checksums(rows[i : i + 1, :6], rows[i : i + 1, 6])[0]) for i in range(50)]
    assert together.tolist() == alone


@pytest.mark.parametrize("places", [(0, 1), (3, 9)])
def test_numbers_that_change_places(places: tuple[int, int]) -> None:
    row = np.random.default_rng(2).random((1, 10))
    other = row.copy()
    other[0, list(places)] = row[0, list(reversed(places))]
    assert checksums(row) != checksums(other)


def test_two_signs_at_once() -> None:
    row = np.ones((1, 4))
    assert checksums(row) != checksums(row * [-1, -1, 1, 1])
