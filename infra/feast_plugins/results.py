"""What a retrieval computes: a point-in-time join, or the rows of one query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import duckdb
import numpy as np
import pyarrow as pa
from feast.repo_config import RepoConfig

from skewless.contract.errors import RequestError
from skewless.contract.rows import NO_TIME
from skewless.contract.status import BoolArray, Status, row_status
from skewless.infra.compiler.views import to_dtype
from skewless.infra.feast_plugins.entity_rows import EntityRows, named_relations
from skewless.infra.feast_plugins.exact_values import fit_column
from skewless.infra.feast_plugins.feature_history import EVENT, ViewHistory, view_history
from skewless.infra.feast_plugins.key_types import as_type
from skewless.infra.feast_plugins.requested_features import RequestedFeatures, RequestedView
from skewless.infra.feast_plugins.windowed_views import is_windowed
from skewless.infra.materialization.skipped_rows import refuse_left_out, tell_left_out
from skewless.infra.offline import arrays
from skewless.infra.offline.as_of import ROW, TIME, as_of_sql
from skewless.infra.offline.engine import connect
from skewless.infra.offline.matched_rows import HistoryRows, fetch_rows, find_rows
from skewless.infra.offline.sources import Table
from skewless.infra.offline.sql import quote, sql_literal, to_microseconds
from skewless.infra.sources.place import repo_of, settings_of, state_of

if TYPE_CHECKING:
    from skewless.contract.spec import TimeMode

Entities = Callable[[duckdb.DuckDBPyConnection], EntityRows]


@contextmanager
def engine(config: RepoConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that finds files relative to the repo and spills into the state folder.

    Raises:
        DefinitionError: a setting cannot be right.
    """
    settings = settings_of(config)
    store = config.offline_store
    limit = getattr(store, "memory_limit", None) or settings.memory_limit
    threads = getattr(store, "threads", None) or settings.threads
    with connect(state_of(config) / "spill", memory_limit=limit, threads=threads) as connection:
        connection.execute(f"SET file_search_path = {sql_literal(str(repo_of(config)))}")
        yield connection


class RetrievalResult(Protocol):
    """What a retrieval job computes when it is asked; each call computes it anew."""

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """Yield the answer in order, in pieces of about so many rows; at least one, which may be empty."""

    def sql(self) -> str:
        """Return the SQL that says the same."""


@dataclass(frozen=True, kw_only=True)
class PointInTimeResult:
    """Entity rows with the features that stood at their times.

    Args:
        entities: reads the entity rows on a connection.
        query: the entity rows as the SQL that they were asked for in, if they were.
        as_known: whether a feature row counts only from its created time on, and an event from when serving could
            have known it.
    """

    config: RepoConfig
    asked: RequestedFeatures
    entities: Entities
    query: str | None = None
    as_known: bool = False

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """Yield the entity rows in their order, duplicates kept, with the stored features of the request.

        Memory: the entity rows, and each feature row that is found, once.
        """
        with engine(self.config) as connection:
            entities = self.entities(connection)
            found = [_found(self, connection, entities, asked) for asked in self.asked.views]
        for start in range(0, max(entities.table.num_rows, 1), rows):
            piece = entities.table.slice(start, rows)
            for asked, view_rows in zip(self.asked.views, found, strict=True):
                part = HistoryRows(table=view_rows.table, at=view_rows.at[start : start + rows]).in_order()
                for name, label in zip(part.column_names, asked.labels.values(), strict=True):
                    piece = piece.append_column(label, part[name])
            yield piece

    def entity_rows(self) -> EntityRows:
        """Return the entity rows.

        Raises:
            RequestError: they cannot be read.
        """
        with engine(self.config) as connection:
            return self.entities(connection)

    def sql(self) -> str:
        """Return one DuckDB statement for the stored features; databases must be attached as it calls them.

        Raises:
            RequestError: a windowed view is asked for.
        """
        for asked in self.asked.views:
            if is_windowed(asked.view):
                raise RequestError(
                    f"windowed view {asked.view.name!r}",
                    "is not computed by SQL alone",
                    fix="leave it out, or take the result with to_arrow()",
                )
        with engine(self.config) as connection, ExitStack() as stack:
            entities = self.entities(connection)
            histories = [view_history(self.config, connection, asked, entities.types) for asked in self.asked.views]
            for history in histories:
                stack.enter_context(history.source.table.open(connection))
            return _statement(self, connection, entities, histories)


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The rows of one query over one table.

    Args:
        query: SQL that reads ``table.relation`` once.
    """

    config: RepoConfig
    table: Table
    query: str

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """Yield the rows in the order of the source."""
        with engine(self.config) as connection, self.table.open(connection):
            relation = connection.sql(self.query, params=self.table.parameters)
            reader = relation.to_arrow_reader(rows)
            yield pa.Table.from_batches([], schema=reader.schema)
            yield from (pa.Table.from_batches([batch]) for batch in reader)

    def sql(self) -> str:
        """Return the query with the files that it reads."""
        return self.query.replace(self.table.relation, self.table.literal)


def _found(
    answer: PointInTimeResult, connection: duckdb.DuckDBPyConnection, entities: EntityRows, asked: RequestedView
) -> HistoryRows:
    refuse_same_names(entities, asked)
    if is_windowed(asked.view):
        from skewless.infra.feast_plugins.window_history import window_rows  # noqa: PLC0415 - for projects with windows only

        mode: TimeMode = "knowledge" if answer.as_known else "event_time"
        return window_rows(answer.config, connection, entities, asked, mode)
    view = view_history(answer.config, connection, asked, entities.types)
    keys = {name: _entity_key(entities, name, target) for name, target in view.types.items()}
    rows = entities.joinable(connection, keys)
    left_out = view.left_out(connection)
    if settings_of(answer.config).strict:
        refuse_left_out(asked.view.name, left_out)
    tell_left_out(asked.view.name, left_out)
    with view.open(connection, as_known=answer.as_known) as (history, parameters, count):
        ids = find_rows(connection, history, parameters, rows, count)
        found = fetch_rows(connection, history, parameters, ids, history.columns)
    expired = _expired(rows, found, view.ttl_us)
    return HistoryRows(
        table=_fitted(asked, found.table.drop_columns([EVENT])).combine_chunks(),
        at=np.where(expired, found.table.num_rows, found.at).astype(np.int64),
    )


def _fitted(asked: RequestedView, table: pa.Table) -> pa.Table:
    """Return found rows whose lists hold what Feast's messages can, as online."""
    declared = {field.name: field for field in asked.view.features}
    for i, name in enumerate(asked.labels):
        place = table.schema.get_field_index(f"__f{i}")
        if name in declared and to_dtype(declared[name].dtype) is None:
            owner = f"source of view {asked.view.name!r} column {name!r}"
            table = table.set_column(place, f"__f{i}", fit_column(owner, declared[name], table.column(place)))
    return table


def refuse_same_names(entities: EntityRows, asked: RequestedView) -> None:
    """Refuse a request whose entity rows have a column that the answer would have twice.

    Raises:
        RequestError: they do.
    """
    for label in asked.labels.values():
        if label in entities.table.column_names:
            raise RequestError(
                "entity rows",
                "have a column that is also a feature of the request",
                value=label,
                fix="rename it, leave it out, or pass full_feature_names=True",
            )


def _entity_key(entities: EntityRows, name: str, target: str) -> str:
    if name not in entities.types:
        return "''"
    return as_type(quote(name), entities.types[name], target)


def _expired(rows: pa.Table, found: HistoryRows, ttl_us: int) -> BoolArray:
    """Return which entity rows found a row that is older than the ttl; one exactly as old is not."""
    if ttl_us <= 0:
        return np.zeros(len(found.at), dtype=np.bool_)
    asked = arrays.to_int64(rows[TIME], NO_TIME)
    there: BoolArray = found.at < found.table.num_rows
    events = np.append(arrays.to_int64(found.table[EVENT], NO_TIME), NO_TIME)[found.at]
    return np.asarray(row_status(there, np.where(there, events, asked), asked, ttl_us) == Status.EXPIRED)


def _statement(
    answer: PointInTimeResult,
    connection: duckdb.DuckDBPyConnection,
    entities: EntityRows,
    histories: Sequence[ViewHistory],
) -> str:
    moment = to_microseconds(quote(entities.time), entities.types[entities.time])
    shown = f"({answer.query})" if answer.query else "entity_df"
    numbered = f"SELECT *, row_number() OVER () AS {ROW}, {moment} AS {TIME} FROM {shown}"
    named = named_relations(answer.config, answer.asked.views) if answer.query else {}
    parts = [f"{quote(name)} AS (SELECT * FROM {relation})" for name, relation in named.items()]
    parts.append(f"entity_df AS MATERIALIZED ({numbered})")
    columns, joins = [f"e.* EXCLUDE ({ROW}, {TIME})"], []
    for i, (asked, view) in enumerate(zip(answer.asked.views, histories, strict=True)):
        table = view.source.table
        keys = ", ".join(f"{_entity_key(entities, name, kind)} AS {quote(name)}" for name, kind in view.types.items())
        position = table.position_sql(connection)
        rows = view.select(position or "row_number() OVER ()").replace(table.relation, table.literal)
        history = view.history(f"history_{i}", "__position", as_known=answer.as_known)
        parts.append(f"history_{i} AS MATERIALIZED ({rows})")
        parts.append(f"asked_{i} AS MATERIALIZED (SELECT {keys}, {TIME}, {ROW} FROM entity_df)")
        parts.append(f"found_{i} AS ({as_of_sql(history, f'asked_{i}')})")
        fresh = f" AND e.{TIME} - f{i}.{EVENT} <= {view.ttl_us}" if view.ttl_us > 0 else ""
        joins.append(f" LEFT JOIN found_{i} f{i} ON e.{ROW} = f{i}.{ROW}{fresh}")
        columns += [
            f"f{i}.{name} AS {quote(label)}" for name, label in zip(view.columns, asked.labels.values(), strict=True)
        ]
    return f"WITH {', '.join(parts)} SELECT {', '.join(columns)} FROM entity_df e{''.join(joins)} ORDER BY e.{ROW}"
