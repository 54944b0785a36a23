"""Sample entity keys of a log: the keys with most rows, random keys, and a few keys that do not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from skewless.contract.arrow_numbers import typed_array
from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.windows.view import WindowView
from skewless.infra.log.log_columns import REJECT
from skewless.infra.reads.offline.sql import quote, quote_all
from skewless.infra.reads.offline.window_events import LogPartition, WindowEvents

if TYPE_CHECKING:
    import duckdb

_HOT = 10  # one in ten keys is chosen for its many rows
_UNKNOWN_KEYS = 3


def sample_event_keys(
    connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPartition], n: int, seed: int
) -> pa.Table:
    """Return at most n distinct keys of a view's events, and a few unknown keys; equal for equal seeds."""
    events = WindowEvents(connection, view, parts, {}, known=False)
    sample = _sample(connection, view.keys, events.sql, events.files, n, seed) if events.files else None
    return _add_unknown_keys(view.keys, sample, seed)


def sample_row_keys(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[Column], files: Sequence[str], n: int, seed: int
) -> pa.Table:
    """Return at most n distinct keys of accepted batch rows, and a few unknown keys; equal for equal seeds."""
    has_key = " AND ".join(f"{quote(key.name)} IS NOT NULL" for key in keys)
    rows = f"SELECT * FROM read_parquet(?) WHERE {REJECT} IS NULL AND {has_key}"
    sample = _sample(connection, keys, rows, [list(files)], n, seed) if files else None
    return _add_unknown_keys(keys, sample, seed)


def sample_sql(keys: Sequence[str], rows: str, n: int, seed: int) -> str:
    """Return SQL for at most n distinct keys of some rows: a tenth by number of rows, the others at random."""
    listed, hot = quote_all(keys), n // _HOT
    # A hash of the key and not random(): DuckDB's threads yield rows in any order, and a seed must give one sample.
    chance = f"hash({listed}, {seed})"
    counted = f"SELECT {listed}, count(*) AS __n, {chance} AS __chance FROM ({rows}) GROUP BY {listed}"
    ranked = (
        f"SELECT *, row_number() OVER (ORDER BY __n DESC, __chance, {listed}) AS __hot,"
        f" row_number() OVER (ORDER BY __chance, {listed}) AS __place FROM ({counted})"
    )
    return f"SELECT {listed} FROM ({ranked}) WHERE __hot <= {hot} OR __place <= {n - hot} ORDER BY __place"


def _sample(
    connection: duckdb.DuckDBPyConnection,
    keys: Sequence[Column],
    rows: str,
    files: Sequence[Sequence[str]],
    n: int,
    seed: int,
) -> pa.Table:
    query = sample_sql([key.name for key in keys], rows, n, seed)
    return connection.sql(query, params=list(files)).to_arrow_table()


def _add_unknown_keys(keys: Sequence[Column], sample: pa.Table | None, seed: int) -> pa.Table:
    # An unknown key may exist in the log by accident. Sets and lists: a join or a group of Arrow imports pandas.
    known = set() if sample is None else set(zip(*(sample[key.name].to_pylist() for key in keys), strict=True))
    unknown = [tuple(_unknown_key(key.dtype, seed, i) for key in keys) for i in range(_UNKNOWN_KEYS)]
    rows = [row for row in unknown if row not in known]
    columns = {}
    for place, key in enumerate(keys):
        kind = arrow_type(key.dtype)
        values = [row[place] for row in rows]
        added = typed_array(values, pa.string() if key.dtype is DType.STRING else pa.int64()).cast(kind)
        found = [] if sample is None else [chunk.cast(kind) for chunk in sample[key.name].chunks]
        columns[key.name] = pa.chunked_array([*found, added], kind)
    return pa.table(columns).combine_chunks()


def _unknown_key(dtype: DType, seed: int, i: int) -> int | str:
    if dtype is DType.STRING:
        return f"nobody-{seed}-{i}"
    # Within int32, so that a key of each integer type can have it.
    return -(2**31) + (seed * _UNKNOWN_KEYS + i) % 2**30
