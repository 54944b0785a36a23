"""The entities of a range of time, for requests that name no entity rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL as EVENT_TIMESTAMP
from feast.repo_config import RepoConfig
from feast.utils import compute_non_entity_date_range

from skewless.contract.clock import to_us
from skewless.infra.feast_plugins.asked_features import AskedView
from skewless.infra.feast_plugins.entity_rows import EntityRows, read_entities
from skewless.infra.feast_plugins.feature_history import view_source
from skewless.infra.feast_plugins.windowed import is_windowed
from skewless.infra.offline.sql import quote


@dataclass(frozen=True, kw_only=True)
class Range:
    """Every entity that had an event in a range of time, as of its end; both ends belong to it."""

    start: datetime
    end: datetime


def date_range(views: Sequence[Any], start: datetime | None, end: datetime | None) -> Range:
    """Return the range of a request without entity rows, filled in as Feast does."""
    return Range(**dict(zip(("start", "end"), compute_non_entity_date_range(list(views), start, end), strict=True)))


def range_entities(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, views: Sequence[AskedView], wanted: Range
) -> EntityRows:
    """Return one row for each key that the views' sources, or logs of events, have in a range, at its end.

    A view with other keys than another adds rows of its own, in which the other's keys are null.
    """
    start, end = to_us(wanted.start), to_us(wanted.end)
    moment = pa.array([end], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    keyed = [asked for asked in views if asked.view.entity_columns]
    if not keyed:
        return read_entities(connection, pa.table({EVENT_TIMESTAMP: moment}))
    found = [_keys_between(config, connection, asked, start, end) for asked in keyed]
    kinds = {field.name: field.type for table in found for field in table.schema}
    schema = pa.schema(list(kinds.items()))
    rows = pa.concat_tables([_filled(table, schema) for table in found])
    distinct = rows.group_by(rows.column_names, use_threads=False).aggregate([])
    distinct = distinct.sort_by([(name, "ascending") for name in distinct.column_names])
    ends = pa.repeat(moment[0], distinct.num_rows)
    return read_entities(connection, distinct.append_column(EVENT_TIMESTAMP, ends))


def _keys_between(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, asked: AskedView, start: int, end: int
) -> pa.Table:
    view = asked.view
    if is_windowed(view):
        from skewless.infra.feast_plugins.window_history import window_keys  # noqa: PLC0415 - for projects with windows only

        return window_keys(config, connection, asked, start, end)
    source = view_source(config, connection, view)
    names = {
        view.projection.join_key_map.get(column.name, column.name): source.key(column.name)
        for column in view.entity_columns
    }
    keys = [f"{expression} AS {quote(name)}" for name, expression in names.items()]
    moment = source.moment(view.batch_source.timestamp_field)
    conditions = [
        f"{moment} BETWEEN {start} AND {end}",
        *(f"{expression} IS NOT NULL" for expression in names.values()),
    ]
    query = f"SELECT DISTINCT {', '.join(keys)} FROM {source.table.relation} WHERE {' AND '.join(conditions)}"
    with source.table.opened(connection):
        return connection.sql(query, params=source.table.parameters).to_arrow_table()


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = {
        field.name: table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    }
    return pa.table(columns, schema=schema)
