"""Questions about many ranges at once, against one Python loop for each."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.status import Int64Array
from skewless.contract.windows.ranges import LimitFilter, RangeExtremes, first_at_least, split_ranges
from skewless.contract.windows.sketch import NO_HASH, RangeSketches
from skewless.infra.reads.offline.window_events import split_by_key

SEEDS = st.integers(0, 2**32)
SIZES = st.integers(0, 40) | st.integers(0, 700)


def drawn_ranges(rng: np.random.Generator, n: int, count: int = 60) -> tuple[Int64Array, Int64Array]:
    ends = np.sort(rng.integers(0, n + 1, (2, count)), axis=0)
    return ends[0], ends[1]


@given(seed=SEEDS, n=SIZES)
def test_extremes(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([math.nan, math.inf, -math.inf, 0.0, 1.5, -2.0, 7.0], n)
    low, high = drawn_ranges(rng, n)
    for better, python in ((np.fmin, min), (np.fmax, max)):
        found = RangeExtremes(values, better, np.float64(np.nan)).find(low, high)
        for i, (a, b) in enumerate(zip(low, high, strict=True)):
            some = [value for value in values[a:b].tolist() if value == value]  # noqa: PLR0124 - NaN
            assert found[i] == python(some) if some else math.isnan(found[i])


@given(seed=SEEDS, n=SIZES, runs=st.booleans())
def test_pieces_are_what_the_mark_does_not_leave_out(seed: int, n: int, *, runs: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, n)
    values = np.sort(values) if runs else values
    low, high = drawn_ranges(rng, n)
    limit = rng.integers(-1, 10, len(low))
    out = LimitFilter(values).find_excluded(low, high, limit)
    assert out is not None
    left = split_ranges(low, high, out)
    assert set(left.query.tolist()) == set(range(len(low)))
    assert (np.diff(left.query) >= 0).all()
    for i in range(len(low)):
        mine = left.query == i
        places = [place for a, b in zip(left.low[mine], left.high[mine], strict=True) for place in range(a, b)]
        assert places == [place for place in range(low[i], high[i]) if values[place] <= limit[i]]


def test_a_mark_says_when_it_leaves_out_too_many_ranges() -> None:
    mark = LimitFilter(np.tile([0, 9], 50))
    low, high, limit = np.array([0]), np.array([100]), np.array([5])
    assert mark.find_excluded(low, high, limit, 49) is None
    found = mark.find_excluded(low, high, limit, 1_000)
    assert found is not None
    assert len(found) == 50


@pytest.mark.parametrize("value", [9, 0])
def test_a_mark_on_all_of_a_range_is_one_range(value: int) -> None:
    found = LimitFilter(np.full(1_000, value)).find_excluded(np.array([3]), np.array([998]), np.array([5]), 100)
    assert found is not None
    assert list(zip(found.low.tolist(), found.high.tolist(), strict=True)) == ([(3, 998)] if value else [])


@given(seed=SEEDS, n=SIZES, k=st.sampled_from([2, 8, 100]), kinds=st.sampled_from([3, 50, 2**40]))
def test_sketches(seed: int, n: int, k: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, kinds, n).astype(np.uint64)
    hashes[rng.random(n) < 0.1] = NO_HASH
    low, high = drawn_ranges(rng, n)
    group, found = RangeSketches(hashes, k).select_smallest(low, high)
    wanted = [
        (i, one)
        for i, (a, b) in enumerate(zip(low, high, strict=True))
        for one in sorted(set(hashes[a:b].tolist()) - {int(NO_HASH)})[:k]
    ]
    assert list(zip(group.tolist(), found.tolist(), strict=True)) == wanted


@given(seed=SEEDS, n=SIZES)
def test_search_in_segments(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.integers(0, 50, n))
    low, high = drawn_ranges(rng, n)
    wanted = rng.integers(-1, 51, len(low))
    expected = [int(a + np.searchsorted(values[a:b], one)) for a, b, one in zip(low, high, wanted, strict=True)]
    assert first_at_least(values, low, high, wanted).tolist() == expected


@given(keys=st.lists(st.integers(0, 5), max_size=40).map(sorted), size=st.integers(1, 5), rows=st.integers(1, 12))
def test_keys_stay_whole_when_a_stream_is_cut(keys: list[int], size: int, rows: int) -> None:
    batches = pa.table({"k": pa.array(keys, pa.int64())}).to_batches(max_chunksize=size)
    parts = [(table["k"].to_pylist(), continues) for table, continues in split_by_key(batches, "k", rows)]
    assert all(part for part, _ in parts)
    # A key is cut only if it has many rows; then a table has no other key.
    assert all(len(part) < 3 * rows for part, _ in parts)
    assert not parts or not parts[-1][1]
    tables: list[list[int]] = []
    is_open = False
    for part, continues in parts:
        assert not (continues or is_open) or len(set(part)) == 1
        tables = [*tables[:-1], tables[-1] + part] if is_open else [*tables, part]
        is_open = continues
    assert [key for table in tables for key in table] == keys
    assert all(tables)
    assert all(before[-1] != after[0] for before, after in pairwise(tables))
    # Without the key that has most, a table is no longer than asked by more than a batch.
    assert all(len(table) - max(map(table.count, table)) < rows + size for table in tables)
