"""Windowed views in retrievals: the past of their features, computed from the accepted log of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.repo_config import RepoConfig

from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.contract.spec import TimeMode
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.feast_plugins.key_types import as_type, common_type
from skewless.infra.feast_plugins.requested_features import RequestedView
from skewless.infra.feast_plugins.windowed_views import WindowPlans
from skewless.infra.log.accepted import EVENT, REJECT
from skewless.infra.offline import arrays
from skewless.infra.offline.as_of import ID, TIME
from skewless.infra.offline.log_parts import read_log_partitions
from skewless.infra.offline.matched_rows import HistoryRows
from skewless.infra.offline.sql import quote
from skewless.infra.offline.window_join import WindowJoin
from skewless.infra.sources.place import state_of

if TYPE_CHECKING:
    from skewless.infra.feast_plugins.entity_rows import EntityRows


def window_rows(
    config: RepoConfig,
    connection: duckdb.DuckDBPyConnection,
    entities: EntityRows,
    asked: RequestedView,
    mode: TimeMode,
) -> HistoryRows:
    """Return the features of a windowed view at the times of entity rows, in their order.

    Args:
        mode: ``knowledge``: only the events that serving could have known by then count.

    Raises:
        StalePlanError: the plan in force lacks the view.
        RequestError: a feature is unknown, or the entity rows lack a key or have it in another type.
    """
    state = state_of(config)
    view = WindowPlans(state).view(asked.view, asked.labels)
    rows = _asked_rows(connection, entities, asked, view)
    read = WindowJoin(connection).read(view, read_log_partitions(state / "log", view.source), rows, mode=mode)
    places = pa.array(np.arange(rows.num_rows))
    columns = [pa.array(read.values[name], mask=read.nulls[name]) for name in asked.labels]
    table = pa.table([places, *columns], names=[ID, *(f"__f{i}" for i in range(len(columns)))])
    return HistoryRows(table=table, at=np.arange(rows.num_rows, dtype=np.int64))


def window_keys(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, asked: RequestedView, start: int, end: int
) -> pa.Table:
    """Return each key that had an accepted event in a range of time, both ends of which belong to it."""
    state = state_of(config)
    view = WindowPlans(state).view(asked.view, asked.labels)
    files = [file for part in read_log_partitions(state / "log", view.source) for file in part.files]
    names = [quote(column.name) for column in view.keys]
    renamed = [f"{quote(column.name)} AS {quote(_called(asked, column))}" for column in view.keys]
    if not files:
        empty = [f"CAST(NULL AS {column.dtype.sql}) AS {quote(_called(asked, column))}" for column in view.keys]
        return connection.sql(f"SELECT {', '.join(empty)} LIMIT 0").to_arrow_table()
    conditions = [f"{EVENT} BETWEEN {start} AND {end}", f"{REJECT} IS NULL", *(f"{name} IS NOT NULL" for name in names)]
    return connection.sql(
        f"SELECT DISTINCT {', '.join(renamed)} FROM read_parquet(?, union_by_name=true)"
        f" WHERE {' AND '.join(conditions)}",
        params=[files],
    ).to_arrow_table()


def _asked_rows(
    connection: duckdb.DuckDBPyConnection, entities: EntityRows, asked: RequestedView, view: WindowView
) -> pa.Table:
    """Return the keys as the view calls and types them, and ``__t``; a row without a time has no key either.

    Times are floored to the millisecond, as serving floors its clock.
    """
    called = {_called(asked, column): column for column in view.keys}
    rows = entities.joinable(connection, {name: _key(entities, view, name, column) for name, column in called.items()})
    timed = rows[TIME].is_valid()
    keys = {column.name: pc.if_else(timed, rows[name], None) for name, column in called.items()}
    return pa.table({**keys, TIME: pa.array(arrays.to_int64(rows[TIME], 0) // MILLISECOND * MILLISECOND)})


def _called(asked: RequestedView, column: Column) -> str:
    """Return what the request calls a key of the view."""
    return str(asked.view.projection.join_key_map.get(column.name, column.name))


def _key(entities: EntityRows, view: WindowView, name: str, column: Column) -> str:
    owner = f"windowed view {view.name!r}"
    if name not in entities.types:
        raise RequestError(
            "entity rows", f"lack the key of {owner}", value=name, fix="add the column, or leave the view out"
        )
    common = common_type(f"{owner} key {name!r}", entities.types[name], column.dtype.sql)
    key = as_type(quote(name), entities.types[name], common)
    return f"TRY_CAST({key} AS {column.dtype.sql})"
