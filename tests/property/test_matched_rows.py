"""SEMANTICS 2.1, 2.2: the as-of join by row id, against plain Python, and its values to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.infra.reads.offline.as_of import History
from skewless.infra.reads.offline.matched_rows import (
    HistoryRows,
    MatchedRows,
    copy_to_table,
    fetch_rows,
    find_rows,
    register_tables,
)
from tests.property.fewer import FEWER

EDGE = 2**63 - 1
MOMENTS = st.sampled_from([0, 1, 2, 3, -1, -EDGE, EDGE])
KEYS = st.sampled_from([("a", 1), ("a", 2), ("", 1), (None, 1), ("a", None)])
HistoryRow = tuple[tuple[str | None, int | None], int | None, tuple[int, int]]
KeyedTime = tuple[tuple[str | None, int | None], int | None]
HISTORY = st.lists(st.tuples(KEYS, st.none() | MOMENTS, st.tuples(MOMENTS, MOMENTS)), max_size=12)
ASKS = st.lists(st.tuples(KEYS, st.none() | MOMENTS), min_size=1, max_size=8)


def shape(ranks: int, *, running: bool) -> History:
    return History(
        relation="history_rows",
        keys=["select", 'k"2'],
        valid_from="valid",
        rank=["first", "second"][:ranks],
        row_id="id",
        columns=["id"],
        running=running,
    )


def history_table(rows: Sequence[HistoryRow]) -> pa.Table:
    return pa.table(
        {
            "select": pa.array([row[0][0] for row in rows], pa.string()),
            'k"2': pa.array([row[0][1] for row in rows], pa.int32()),
            "valid": pa.array([row[1] for row in rows], pa.int64()),
            "first": pa.array([row[2][0] for row in rows], pa.int64()),
            "second": pa.array([row[2][1] for row in rows], pa.int64()),
            "id": pa.array(range(len(rows)), pa.int64()),
        }
    )


def entity_table(asks: Sequence[KeyedTime]) -> pa.Table:
    parts = [
        pa.table(
            {
                "__t": pa.array([t], pa.int64()),
                'k"2': pa.array([key[1]], pa.int32()),
                "select": pa.array([key[0]], pa.string()),
            }
        )
        for key, t in asks
    ]
    return pa.concat_tables(parts)


def oracle(rows: Sequence[HistoryRow], ask: KeyedTime, ranks: int, *, running: bool) -> int:
    key, t = ask
    if t is None or None in key:
        return -1
    standing = [
        ((() if running else (valid,)) + rank[:ranks], i)
        for i, (own, valid, rank) in enumerate(rows)
        if own == key and valid is not None and valid <= t
    ]
    return max(standing, default=((), -1))[1]


@pytest.mark.parametrize("ranks", [0, 1, 2])
@pytest.mark.parametrize("running", [False, True])
@FEWER
@given(HISTORY, ASKS, st.sampled_from([0, 20_000_000]))
def test_each_row_finds_what_plain_python_finds(
    connection: duckdb.DuckDBPyConnection,
    ranks: int,
    running: bool,  # noqa: FBT001 - a parameter of the test
    rows: list[HistoryRow],
    asks: list[KeyedTime],
    history_rows: int,
) -> None:
    history = shape(ranks, running=running)
    with register_tables(connection, {"history_rows": history_table(rows)}):
        found = find_rows(connection, history, [], entity_table(asks), history_rows)
    assert found.tolist() == [oracle(rows, ask, ranks, running=running) for ask in asks]


def values_table() -> pa.Table:
    payload = np.array([0x7FF8_0000_0000_0001, 0xFFF4_0000_DEAD_BEEF], dtype=np.uint64).view(np.float64)
    return pa.table(
        {
            "select": ["a"] * 4,
            'k"2': pa.array([1] * 4, pa.int32()),
            "valid": pa.array([0, 1, 2, 3], pa.int64()),
            "id": pa.array([0, 1, 2, 3], pa.int64()),
            "x_y": np.array([-0.0, payload[0], payload[1], 5e-324]),
            "narrow": np.array([-0.0, np.nan, np.inf, 1e-45], dtype=np.float32),
            "whole": pa.array([2**53 + 1, None, -(2**63), EDGE], pa.int64()),
            "text": pa.array(["", None, "日", "\x00"], pa.string()),
        }
    )


@pytest.mark.parametrize("stored", [False, True])
def test_values_come_out_bit_for_bit(
    connection: duckdb.DuckDBPyConnection,
    stored: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    table = values_table()
    columns = ["x_y", "narrow", "whole", "text"]
    history = replace(shape(0, running=False), columns=columns)
    asked = entity_table([(("a", 1), t) for t in (3, 0, 2, -1, 1, 0)])
    with (
        register_tables(connection, {"history_rows": table}),
        copy_to_table(connection, "a copy", "FROM history_rows", []) as copy,
    ):
        if stored:
            history = replace(history, relation=copy, row_id="rowid")
        ids = find_rows(connection, history, [], asked, 4)
        rows = fetch_rows(connection, history, [], ids, columns).in_order()
    expected = table.select(columns).take(pa.array([3, 0, 2, None, 1, 0]))
    assert ids.tolist() == [3, 0, 2, -1, 1, 0]
    for name in ("whole", "text"):
        assert rows[name].to_pylist() == expected[name].to_pylist()
    for name in ("x_y", "narrow"):
        assert rows[name].is_null().to_pylist() == [False, False, False, True, False, False]
        kept = [0, 1, 2, 4, 5]
        assert rows[name].to_numpy()[kept].tobytes() == expected[name].to_numpy()[kept].tobytes()


VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.float32(): st.floats(width=32),
    pa.timestamp("us", tz="UTC"): st.integers(0, 2**40),
    pa.decimal128(20, 3): st.decimals(0, 10**6, places=3),
    pa.string(): st.text(max_size=3),
    pa.list_(pa.int64()): st.lists(st.integers(0, 9), max_size=2),
    pa.null(): st.none(),
}
TYPED = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(st.none() | VALUES[kind], max_size=5))
)


@given(TYPED, st.integers(0, 2), st.lists(st.integers(0, 5), max_size=6))
def test_rows_of_any_type_come_in_order(typed: tuple[pa.DataType, list[Any]], skipped: int, places: list[int]) -> None:
    column = pa.array(typed[1], typed[0])[skipped:]
    at = np.minimum(np.array(places, dtype=np.int64), len(column))
    table = pa.table({"__id": pa.array(range(len(column)), pa.int64()), "x": column})
    expected = pa.concat_arrays([column, pa.nulls(1, column.type)]).take(pa.array(at))
    # Formatted, because no NaN equals another.
    assert str(HistoryRows(table=table, at=at).in_order()["x"].to_pylist()) == str(expected.to_pylist())


@pytest.mark.parametrize("ids", [[], [-1, -1], [5, -1, 2, 5], [2**62, -1, 0, 2**62]])
def test_ids_may_be_dense_sparse_or_missing(connection: duckdb.DuckDBPyConnection, ids: list[int]) -> None:
    used = sorted({number for number in ids if number >= 0})
    history = replace(shape(0, running=False), relation="used", columns=["id"])
    with register_tables(connection, {"used": pa.table({"id": pa.array(used, pa.int64())})}):
        matched = MatchedRows(connection, history, [], np.array(ids, dtype=np.int64))
        rows = matched.rows(["id"]).in_order()
    assert matched.count == len(used)
    assert rows["id"].to_pylist() == [None if number < 0 else number for number in ids]


def test_nothing_is_found_where_an_id_is_gone(connection: duckdb.DuckDBPyConnection) -> None:
    with register_tables(connection, {"history_rows": values_table()}):
        history = replace(shape(0, running=False), columns=["whole"])
        rows = fetch_rows(connection, history, [], np.array([7, 0, -1, 0]), ["whole"]).in_order()
        none = fetch_rows(connection, history, [], np.array([-1, 9]), ["whole"]).in_order()
    assert rows["whole"].to_pylist() == [None, 2**53 + 1, None, 2**53 + 1]
    assert none["whole"].to_pylist() == [None, None]
