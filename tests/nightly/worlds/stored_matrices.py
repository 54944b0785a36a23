"""Matrices in the storage: the same numbers as one in memory, in files of any number of rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.vector import Matrix
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.training.stored_matrix import MatrixFiles, StoredMatrix


def store_matrix(
    matrix: Matrix,
    folder: Path,
    cuts: Sequence[int] = (),
    block_rows: int = 100,
    words: Mapping[int, str] | None = None,
) -> StoredMatrix:
    """Return a matrix in files below a folder.

    Args:
        cuts: the rows before which a new file begins; equal ones make empty files.
        words: prefix of the words of text columns, by column; their numbers are the codes.
    """
    words = words or {}
    storage, names = FolderStorage(folder), tuple(f"f{i}" for i in range(matrix.shape[1]))
    bounds = [0, *sorted(cuts), len(matrix)]
    objects = []
    for number, (first, end) in enumerate(itertools.pairwise(bounds)):
        path = storage.staging_path()
        columns = {name: _column(matrix[first:end, i], words.get(i)) for i, name in enumerate(names)}
        pq.write_table(pa.table(columns), path, row_group_size=block_rows)
        objects.append(storage.put_file(f"work/{number}.parquet", path))
        path.unlink()
    files = MatrixFiles(
        storage=storage,
        objects=tuple(objects),
        rows=tuple(end - first for first, end in itertools.pairwise(bounds)),
        block_rows=block_rows,
        scratch=folder / "scratch",
    )
    codes = {
        names[i]: {f"{prefix}{code:g}": code for code in np.unique(matrix[~np.isnan(matrix[:, i]), i]).tolist()}
        for i, prefix in words.items()
    }
    return StoredMatrix(files, names, codes)


def _column(values: np.ndarray, prefix: str | None) -> pa.Array:
    if prefix is None:
        # Half of the missing values are NaN, and not null.
        return pa.array(values, mask=np.isnan(values) & (np.arange(len(values)) % 2 == 0))
    return pa.array([None if np.isnan(value) else f"{prefix}{value:g}" for value in values], pa.string())
