"""Read windowed views for historical requests: features at past times, computed from the accepted log of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.repo_config import RepoConfig

from skewless.contract.columns import Column
from skewless.contract.spec import TimeMode
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.sources.source_schema import state_of
from skewless.infra.log.log_columns import EVENT, REJECT
from skewless.infra.reads.offline import arrays
from skewless.infra.reads.offline.as_of import ID, TIME
from skewless.infra.reads.offline.log_parts import read_log_partitions
from skewless.infra.reads.offline.matched_rows import HistoryRows
from skewless.infra.reads.offline.sql import quote
from skewless.infra.reads.offline.window_join import WindowJoin
from skewless_feast.exact_values import cast_key, common_type
from skewless_feast.requested_features import RequestedView
from skewless_feast.stored_views import WindowPlans

if TYPE_CHECKING:
    from skewless_feast.entity_rows import EntityRows


def read_window_rows(
    config: RepoConfig,
    connection: duckdb.DuckDBPyConnection,
    entities: EntityRows,
    requested: RequestedView,
    mode: TimeMode,
) -> HistoryRows:
    """Return the features of a windowed view at the times of entity rows, in their order.

    Args:
        mode: ``knowledge``: only events that serving could have known by then count.

    Raises:
        StalePlanError: the applied plan has no such view.
        RequestError: a feature is unknown, or the entity rows have no such key, or a key of another type.
    """
    state = state_of(config)
    view = WindowPlans(state).view(requested.view, requested.labels)
    rows = _read_key_rows(connection, entities, requested, view)
    read = WindowJoin(connection).read(view, read_log_partitions(state, view.source), rows, mode=mode)
    numbers = pa.array(np.arange(rows.num_rows))
    columns = [pa.array(read.values[name], mask=read.nulls[name]) for name in requested.labels]
    table = pa.table([numbers, *columns], names=[ID, *(f"__f{i}" for i in range(len(columns)))])
    return HistoryRows(table=table, at=np.arange(rows.num_rows, dtype=np.int64))


def read_window_keys(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, requested: RequestedView, start: int, end: int
) -> pa.Table:
    """Return the distinct keys with an accepted event in a range of event times; both ends are included."""
    state = state_of(config)
    view = WindowPlans(state).view(requested.view, requested.labels)
    files = [file for part in read_log_partitions(state, view.source) for file in part.files]
    names = [quote(column.name) for column in view.keys]
    renamed = [f"{quote(column.name)} AS {quote(_request_name(requested, column))}" for column in view.keys]
    if not files:
        empty = [
            f"CAST(NULL AS {column.dtype.sql}) AS {quote(_request_name(requested, column))}" for column in view.keys
        ]
        return connection.sql(f"SELECT {', '.join(empty)} LIMIT 0").to_arrow_table()
    conditions = [f"{EVENT} BETWEEN {start} AND {end}", f"{REJECT} IS NULL", *(f"{name} IS NOT NULL" for name in names)]
    return connection.sql(
        f"SELECT DISTINCT {', '.join(renamed)} FROM read_parquet(?, union_by_name=true)"
        f" WHERE {' AND '.join(conditions)}",
        params=[files],
    ).to_arrow_table()


def _read_key_rows(
    connection: duckdb.DuckDBPyConnection, entities: EntityRows, requested: RequestedView, view: WindowView
) -> pa.Table:
    """Return the keys with the view's names and types, and ``__t``; a row without a time has null keys.

    Times are floored to the millisecond, as serving floors its clock.
    """
    columns = {_request_name(requested, column): column for column in view.keys}
    rows = entities.select_keys(
        connection, {name: _key_sql(entities, view, name, column) for name, column in columns.items()}
    )
    # A null key finds nothing (SEMANTICS 3.4), which is what a row without a time must find.
    has_time = rows[TIME].is_valid()
    keys = {column.name: pc.if_else(has_time, rows[name], None) for name, column in columns.items()}
    return pa.table({**keys, TIME: pa.array(arrays.to_int64(rows[TIME], 0) // MILLISECOND * MILLISECOND)})


def _request_name(requested: RequestedView, column: Column) -> str:
    """Return the name of a key in the request."""
    return str(requested.view.projection.join_key_map.get(column.name, column.name))


def _key_sql(entities: EntityRows, view: WindowView, name: str, column: Column) -> str:
    common = common_type(f"windowed view {view.name!r}", name, entities.types, column.dtype.sql)
    key = cast_key(quote(name), entities.types[name], common)
    return f"TRY_CAST({key} AS {column.dtype.sql})"
