"""SEMANTICS 2.1, 6.2: any schema, any null pattern, any key: source, log, store and both reads hold the same bits."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.clock import ManualClock
from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.contract.request import ParsedRows
from skewless.contract.rows import ViewRead
from skewless.infra.ingest.materialization.materialize import Materializer
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.service_vectors import FeatureReader
from tests.memory_store import BlockingMemoryReader, MemoryStore
from tests.property.fewer import FEWER
from tests.worlds.plans import make_plan, make_view

NOW = 10**15
ARROW = {
    DType.INT32: pa.int32(),
    DType.INT64: pa.int64(),
    DType.FLOAT32: pa.float32(),
    DType.FLOAT64: pa.float64(),
    DType.BOOL: pa.bool_(),
    DType.STRING: pa.string(),
    DType.BYTES: pa.binary(),
    DType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}
FLOATS = st.floats(allow_nan=True) | st.sampled_from([-0.0, 5e-324, float("inf")])
TEXT = st.text(max_size=5)
VALUES: Mapping[DType, st.SearchStrategy[Any]] = {
    DType.INT32: st.integers(-(2**31), 2**31 - 1),
    DType.INT64: st.integers(-(2**63), 2**63 - 1) | st.just(2**53 + 1),
    DType.FLOAT32: st.floats(width=32),
    DType.FLOAT64: FLOATS,
    DType.BOOL: st.booleans(),
    DType.STRING: TEXT,
    DType.BYTES: st.binary(max_size=4),
    DType.TIMESTAMP: st.integers(-(10**15), 10**15),
}
KEYS = st.sampled_from([DType.INT32, DType.INT64, DType.STRING])
NAMES = st.sampled_from(["x", "y_y", 'a"b', "select", "Zürich", "a b", "x.y", "é", "group", "_x"])
KEY_NAMES = st.sampled_from(["id", "order", 'k"', "user id", "id_y"])


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A view and its source rows: keys, event, created, then the features; no two rows share a rank."""

    view: View
    rows: list[tuple[Any, ...]]

    @property
    def n_keys(self) -> int:
        return len(self.view.keys)

    def rank(self, row: tuple[Any, ...]) -> tuple[int, bool, int]:
        event, created = row[self.n_keys : self.n_keys + 2]
        return event, created is not None, created or 0


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.lower))
    features = {name: draw(st.sampled_from(list(DType))) for name in names}
    keys = {name: draw(KEYS) for name in draw(st.lists(KEY_NAMES, min_size=1, max_size=2, unique_by=str.lower))}
    entities = draw(
        st.lists(st.tuples(*(VALUES[dtype] for dtype in keys.values())), min_size=1, max_size=3, unique=True)
    )
    times = st.tuples(st.integers(0, 9), st.none() | st.integers(10, 13))
    content = st.tuples(*(st.none() | VALUES[dtype] for dtype in features.values()))
    place = st.tuples(st.sampled_from(entities), times)
    places = draw(st.lists(place, min_size=1, max_size=8, unique=True))
    rows = [(*key, *moments, *draw(content)) for key, moments in places]
    return Drawn(view=make_view(keys=keys, features=features, delay_us=0), rows=rows)


def write_source(folder: Path, case: Drawn) -> None:
    view = case.view
    types = [ARROW[column.dtype] for column in (*view.keys, *view.features)]
    moment = pa.timestamp("us", tz="UTC")
    types[case.n_keys : case.n_keys] = [moment, moment]
    names = [column.name for column in view.keys] + ["event", "created"] + [column.name for column in view.features]
    columns = zip(*case.rows, strict=True)
    arrays = [_array(list(column), dtype) for column, dtype in zip(columns, types, strict=True)]
    # In several row groups and chunks.
    pq.write_table(pa.table(arrays, names=names), folder / "v.parquet", row_group_size=3)


def _array(values: list[Any], dtype: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).cast(dtype) if pa.types.is_timestamp(dtype) else pa.array(values, dtype)


def bits(value: Any) -> object:  # noqa: ANN401 - a value of any type
    """Return a value so that equal means the same bits; NaN payloads aside, which Python's parser may set."""
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)  # noqa: PLR0124 - NaN alone differs from itself
    return value


def seen(read: ViewRead, view: View, n: int) -> list[list[object]]:
    columns = []
    for column in view.features:
        values, nulls = read.values[column.name].tolist(), read.nulls[column.name].tolist()
        columns.append([None if nulls[i] else bits(values[i]) for i in range(n)])
    return [list(row) for row in zip(*columns, strict=True)]


def expected(case: Drawn, keys: Sequence[tuple[Any, ...]]) -> list[list[object]]:
    newest = {}
    for row in sorted(case.rows, key=case.rank):
        newest[row[: case.n_keys]] = row
    return [[bits(value) for value in newest[key][case.n_keys + 2 :]] for key in keys]


@FEWER
@given(drawn())
def test_2_1_any_schema_reads_the_same_bits_from_source_log_and_store(
    connection: duckdb.DuckDBPyConnection, case: Drawn
) -> None:
    view = case.view
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), MemoryStore()
        write_source(folder, case)
        views = OfflineViews(ProjectState(folder / "state"), connection)
        job = Materializer(
            project="p", repo=folder, state=ProjectState(folder / "state"), connection=connection, online=lambda: store,
            ledger=views.ledger, clock=ManualClock(NOW),
        )  # fmt: skip
        (report,) = job.run([view])
        assert (report.accepted, report.rejected) == (len(case.rows), 0)
        keys = sorted({row[: case.n_keys] for row in case.rows}, key=repr)
        columns = {column.name: [key[i] for key in keys] for i, column in enumerate(view.keys)}
        plan = replace(make_plan([], views=[view]), project="p")
        online = FeatureReader(plan, BlockingMemoryReader(store)).views(ParsedRows(keys=columns, fields={}), 0)[0]["v"]
        asked = pa.table({
            **{column.name: pa.array(columns[column.name], ARROW[column.dtype]) for column in view.keys},
            "__t": pa.array([NOW] * len(keys), pa.int64()),
        })  # fmt: skip
        wanted = expected(case, keys)
        assert seen(online, view, len(keys)) == wanted
        for order in ("knowledge", "event_time"):
            assert seen(views.read_view(view, asked, order), view, len(keys)) == wanted
        assert job.run([view])[0].accepted == 0
