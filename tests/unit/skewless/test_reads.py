"""Versions of many reads laid end to end are those of each read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

import numpy as np
import pytest

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.reads import PackedReads, concatenate_versions
from skewless.contract.row_layout import RowLayout
from skewless.contract.rows import PackedVersions, Versions

NAMES = [field.name for field in fields(Versions)]
LAYOUTS = {
    "card": RowLayout([Column(name=f"f{i}", dtype=DType.FLOAT64) for i in range(3)]),
    "shop": RowLayout([Column(name="share", dtype=DType.FLOAT32)]),
}
RECORD = np.dtype([(name, layout.record) for name, layout in LAYOUTS.items()])
Part = Mapping[str, Versions]


def side_by_side(n: int, seed: int) -> Part:
    packed = np.random.default_rng(seed).bytes(n * RECORD.itemsize)
    return PackedReads(RECORD, packed, (), np.empty((n, 0), dtype=np.int64))


def packed(n: int, seed: int) -> Part:
    chance = np.random.default_rng(seed)
    return {
        name: PackedVersions(np.frombuffer(chance.bytes(n * layout.size), layout.record))
        for name, layout in LAYOUTS.items()
    }


def plain(n: int, _: int) -> Part:
    return {name: Versions.empty(n) for name in LAYOUTS}


@pytest.mark.parametrize(
    "makers",
    [[side_by_side] * 3, [packed] * 3, [plain] * 3, [side_by_side, packed, plain], [packed, side_by_side, packed]],
    ids=["side by side", "packed", "plain", "of all kinds", "both packed"],
)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 1, 2)])
def test_joined_versions(makers: Sequence[Callable[[int, int], Part]], sizes: Sequence[int]) -> None:
    parts: list[Part] = [make(n, n) for make, n in zip(makers, sizes, strict=True)]
    found = concatenate_versions(parts)
    assert list(found) == list(LAYOUTS)
    for view in LAYOUTS:
        for name in NAMES:
            expected = np.concatenate([getattr(part[view], name) for part in parts])
            np.testing.assert_array_equal(getattr(found[view], name), expected)


def test_views_that_stand_side_by_side_are_each_their_own() -> None:
    part = side_by_side(4, 1)
    assert len(part) == 2
    assert (part["card"].seq != part["shop"].seq).all()
