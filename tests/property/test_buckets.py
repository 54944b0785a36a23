"""Buckets of entities: pinned values, one bucket for one key in any type, and an even spread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.buckets import find_buckets, split_buckets
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import FeaturePlan
from tests.worlds.plans import make_plan, make_view

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_buckets_never_change() -> None:
    # Other values would send an entity to another task than the one that holds its rows.
    keys = pa.array([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), None])
    assert find_buckets([keys], 4_096).tolist() == [916, 791, 3071, 3030, 1487, 1463, 0]
    texts = pa.array(["", "a", "abcdefgh", "abcdefghi", "日本|{}%", None])
    assert find_buckets([texts], 4_096).tolist() == [3788, 2758, 1787, 2678, 2639, 0]
    assert find_buckets([keys.slice(0, 6), texts], 4_096).tolist() == [102, 232, 1568, 1185, 99, 0]


@given(st.lists(st.one_of(st.none(), INTEGERS), max_size=30), st.sampled_from([1, 7, 64, 4_096]))
def test_the_type_of_an_integer_does_not_matter(values: list[int | None], buckets: int) -> None:
    expected = find_buckets([pa.array(values, pa.int64())], buckets)
    texts = [None if value is None else str(value) for value in values]
    for array in (
        pa.array(texts, pa.string()),
        pa.array(texts, pa.large_string()),
        pa.array([None if text is None else text.encode() for text in texts], pa.binary()),
        pa.chunked_array([pa.array(values[:3], pa.int64()), pa.array(values[3:], pa.int64())]),
        pa.array([7, *values], pa.int64()).slice(1),
        pa.array(texts, pa.string()).dictionary_encode().dictionary_decode(),
    ):
        assert find_buckets([array], buckets).tolist() == expected.tolist()
    assert all(0 <= bucket < buckets for bucket in expected.tolist())


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20))
def test_the_width_of_an_integer_does_not_matter(values: list[int]) -> None:
    wide, narrow = (find_buckets([pa.array(values, kind)], 4_096) for kind in (pa.int64(), pa.int32()))
    assert wide.tolist() == narrow.tolist()


@given(st.lists(st.tuples(st.one_of(st.none(), INTEGERS), st.one_of(st.none(), TEXTS)), max_size=30))
def test_a_bucket_follows_from_the_bytes_of_the_online_key(rows: list[tuple[int | None, str | None]]) -> None:
    columns = (Column(name="id", dtype=DType.INT64), Column(name="s", dtype=DType.STRING))
    keys = [pa.array([row[0] for row in rows], pa.int64()), pa.array([row[1] for row in rows], pa.string())]
    found = find_buckets(keys, 4_096).tolist()
    codec = KeyCodec("p", make_view(keys={column.name: column.dtype for column in columns}))
    names = [codec.encode(row) for row in rows]
    by_name = dict(zip(names, found, strict=True))
    assert [by_name[name] for name in names] == found
    assert all(bucket == 0 for name, bucket in zip(names, found, strict=True) if name is None)
    # Alone, a row has the bucket that it has among others.
    assert [find_buckets([key.slice(i, 1) for key in keys], 4_096)[0] for i in range(len(rows))] == found


@given(st.integers(1, 5_000), st.integers(1, 300))
def test_ranges_cover_each_bucket_once(buckets: int, parts: int) -> None:
    ranges = split_buckets(buckets, parts)
    assert [bucket for first, end in ranges for bucket in range(first, end)] == list(range(buckets))
    assert len(ranges) == min(parts, buckets)


def test_buckets_of_dense_keys_are_even() -> None:
    counts = np.bincount(find_buckets([pa.array(np.arange(400_000))], 4_096), minlength=4_096)
    assert counts.min() > 50
    assert counts.max() < 160


def test_the_number_of_buckets_is_in_the_plan_and_its_default_changes_no_hash() -> None:
    plan = make_plan(["v.x"])
    assert plan.buckets == 4_096
    assert "buckets" not in plan.as_dict()
    other = replace(plan, buckets=64)
    assert other.hash != plan.hash
    assert FeaturePlan.from_dict(other.as_dict()) == other
    assert other.select_service("s").buckets == 64
