"""A file is known by its rows: neither batches nor formats show in their digest, each value does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given
from hypothesis import strategies as st

from skewless.contract.arrow_types import arrow_type
from skewless.contract.dtypes import DType
from skewless.infra.ingest.streams.history_file import RowDigest, digest_rows
from tests.worlds.plans import columns

COLUMNS = columns(
    {
        "i": DType.INT64,
        "f": DType.FLOAT64,
        "g": DType.FLOAT32,
        "b": DType.BOOL,
        "s": DType.STRING,
        "y": DType.BYTES,
        "t": DType.TIMESTAMP,
    }
)
SCHEMA = pa.schema([pa.field(column.name, arrow_type(column.dtype)) for column in COLUMNS])
INTEGERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.just(0))
ROW = st.fixed_dictionaries(
    {
        "i": INTEGERS,
        "f": st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("inf"), 5e-324])),
        "g": st.one_of(st.none(), st.sampled_from([0.0, 0.25])),
        "b": st.one_of(st.none(), st.booleans()),
        "s": st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b", "日本"])),
        "y": st.one_of(st.none(), st.sampled_from([b"", b"a", b"\0"])),
        "t": INTEGERS,
    }
)
RowDicts = list[dict[str, object]]


def table(rows: Sequence[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


@given(st.lists(ROW, min_size=1, max_size=8), st.lists(st.integers(0, 8), max_size=3), st.integers(1, 5))
def test_batches_and_files_leave_no_trace(rows: RowDicts, cuts: list[int], group: int) -> None:
    whole, digest = table(rows), RowDigest(COLUMNS)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for first, last in itertools.pairwise(bounds):
        digest.update(whole.slice(first, last - first))
        assert digest.copy().hexdigest() == digest_rows(COLUMNS, table(rows[:last]))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(whole, path, row_group_size=group, compression="gzip")
        assert digest.hexdigest() == digest_rows(COLUMNS, pq.read_table(path))


@given(st.lists(ROW, max_size=5), st.lists(ROW, max_size=5))
def test_other_rows_have_another_digest(one: RowDicts, other: RowDicts) -> None:
    assume(repr(one) != repr(other))
    assert digest_rows(COLUMNS, table(one)) != digest_rows(COLUMNS, table(other))


def test_not_a_number_is_one_value() -> None:
    bits = pa.array([0x7FF8000000000000, -1, 0x7FF0000000000001], pa.int64()).view(pa.float64())
    (f,) = (column for column in COLUMNS if column.name == "f")
    assert len({digest_rows([f], pa.table({"f": bits.slice(i, 1)})) for i in range(3)}) == 1
