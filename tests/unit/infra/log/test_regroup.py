"""Rows come in pieces of one size, whatever the file's batches are."""

from __future__ import annotations

import pyarrow as pa
import pytest

from skewless.infra.log.reading import regroup


@pytest.mark.parametrize(
    ("batches", "pieces"),
    [([], []), ([0], []), ([4], [4]), ([3, 0, 5, 1], [4, 4, 1]), ([9, 3], [4, 4, 4]), ([1, 1, 1], [3])],
)
def test_batches_become_pieces_of_one_size(batches: list[int], pieces: list[int]) -> None:
    starts = [sum(batches[:i]) for i in range(len(batches))]
    given = [
        pa.record_batch({"i": pa.array(range(start, start + size), pa.int64())})
        for start, size in zip(starts, batches, strict=True)
    ]
    tables = list(regroup(iter(given), 4))
    assert [table.num_rows for table in tables] == pieces
    assert [value for table in tables for value in table["i"].to_pylist()] == list(range(sum(batches)))
