"""Some of the entities that a log knows: the ones with most rows, others by chance, and some that it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.windows.view import WindowView
from skewless.infra.log.accepted import REJECT
from skewless.infra.offline.sql import names, quote
from skewless.infra.offline.window_events import LogPart, WindowEvents

if TYPE_CHECKING:
    import duckdb

_HOT = 10  # one of so many is chosen for its many rows
_STRANGERS = 3


def event_keys(
    connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPart], n: int, seed: int
) -> pa.Table:
    """Return at most n distinct keys of a view's events, and a few that no event has; the same for the same seed."""
    events = WindowEvents(connection, view, parts, {}, known=False)
    found = _chosen(connection, view.keys, events.sql, events.files, n, seed) if events.files else None
    return _with_strangers(view.keys, found, seed)


def row_keys(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[Column], files: Sequence[str], n: int, seed: int
) -> pa.Table:
    """Return at most n distinct keys of accepted batch rows, and a few that no row has; as ``event_keys``."""
    whole = " AND ".join(f"{quote(key.name)} IS NOT NULL" for key in keys)
    rows = f"SELECT * FROM read_parquet(?) WHERE {REJECT} IS NULL AND {whole}"
    found = _chosen(connection, keys, rows, [list(files)], n, seed) if files else None
    return _with_strangers(keys, found, seed)


def sample_sql(keys: Sequence[str], rows: str, n: int, seed: int) -> str:
    """Return SQL for at most n distinct keys of some rows: a tenth those with most rows, the others by chance."""
    listed, hot = names(keys), n // _HOT
    chance = f"hash({listed}, {seed})"
    counted = f"SELECT {listed}, count(*) AS __n, {chance} AS __chance FROM ({rows}) GROUP BY {listed}"
    ranked = (
        f"SELECT *, row_number() OVER (ORDER BY __n DESC, __chance, {listed}) AS __hot,"
        f" row_number() OVER (ORDER BY __chance, {listed}) AS __place FROM ({counted})"
    )
    return f"SELECT {listed} FROM ({ranked}) WHERE __hot <= {hot} OR __place <= {n - hot} ORDER BY __place"


def _chosen(
    connection: duckdb.DuckDBPyConnection,
    keys: Sequence[Column],
    rows: str,
    files: Sequence[Sequence[str]],
    n: int,
    seed: int,
) -> pa.Table:
    query = sample_sql([key.name for key in keys], rows, n, seed)
    return connection.sql(query, params=list(files)).to_arrow_table()


def _with_strangers(keys: Sequence[Column], found: pa.Table | None, seed: int) -> pa.Table:
    columns = {}
    for key in keys:
        kind = arrow_type(key.dtype)
        strange = pa.array([_stranger(key.dtype, seed, i) for i in range(_STRANGERS)], kind)
        known = [] if found is None else [chunk.cast(kind) for chunk in found[key.name].chunks]
        columns[key.name] = pa.chunked_array([*known, strange], kind)
    both = pa.table(columns).combine_chunks()
    # One that is no stranger after all would be asked for twice.
    return both.group_by(both.column_names, use_threads=False).aggregate([])


def _stranger(dtype: DType, seed: int, i: int) -> int | str:
    if dtype is DType.STRING:
        return f"nobody-{seed}-{i}"
    return -(2**31) + (seed * _STRANGERS + i) % 2**30
