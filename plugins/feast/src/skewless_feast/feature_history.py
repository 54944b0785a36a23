"""Build the history of a Feast view's source for the as-of join."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import duckdb
from feast import Field
from feast.feature_view import DUMMY_ENTITY_ID
from feast.repo_config import RepoConfig

from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.rows import NO_TIME
from skewless.infra.definitions.compiler.views import to_dtype
from skewless.infra.definitions.sources.source_schema import readable_path, repo_of, source_table
from skewless.infra.reads.offline.as_of import History
from skewless.infra.reads.offline.matched_rows import copy_to_table
from skewless.infra.reads.offline.source_columns import NAIVE, check_columns, is_converted
from skewless.infra.reads.offline.sources import Table, has_files
from skewless.infra.reads.offline.sql import can_misfit, cast_sql, quote, to_microseconds
from skewless_feast.exact_values import cast_key, common_type
from skewless_feast.requested_features import RequestedView
from skewless_feast.requested_features import Table as View
from skewless_feast.stored_views import is_plain

EVENT = "__event"
CREATED = "__created"
_POSITION = "__position"
_CONSTANT_KEY = "__anybody"
_INTEGERS = {f"{sign}{kind}" for sign in ("", "U") for kind in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")}
_OWN_TYPES = _INTEGERS | {"FLOAT", "DOUBLE", "BOOLEAN"}


@dataclass(frozen=True, kw_only=True)
class HistorySource:
    """A batch source with its columns.

    Args:
        types: DuckDB's type of each column.
        mapping: name in the view -> column.
    """

    table: Table
    types: Mapping[str, str]
    mapping: Mapping[str, str]

    def column(self, name: str) -> str:
        """Return the column of a name in the view.

        Raises:
            SourceError: the source has no such column.
        """
        for column in (self.mapping.get(name, name), name):
            if column in self.types:
                return column
        raise SourceError(
            self.table.name,
            "has no such column",
            value=self.mapping.get(name, name),
            fix=f"correct the definition, or add the column; it has {', '.join(self.types)}",
        )

    def key_sql(self, name: str) -> str:
        """Return SQL of a key; for a view without entities, the empty text.

        Raises:
            SourceError: the source has no such column.
        """
        return "''" if name == DUMMY_ENTITY_ID and name not in self.types else quote(self.column(name))

    def feature_sql(self, name: str, dtype: DType | None) -> str:
        """Return SQL of a feature: the value of its declared type, in the type of the source, which is Feast's.

        Raises:
            SourceError: the source has no such column.
        """
        column = self.column(name)
        kind = self.types[column]
        if dtype is None or (dtype is DType.TIMESTAMP and kind != '"NULL"'):
            return quote(column)
        # A Parquet column without any value has no type of its own.
        if kind == '"NULL"':
            return f"CAST({quote(column)} AS {'TIMESTAMPTZ' if dtype is DType.TIMESTAMP else dtype.sql})"
        if not is_converted(kind, dtype):
            return quote(column)
        value, result = cast_sql(quote(column), kind, dtype), _result_type(kind, dtype)
        return value if result == dtype.sql else f"CAST({value} AS {result})"

    def misfit_sql(self, name: str, dtype: DType | None) -> str | None:
        """Return SQL of whether a feature's value does not fit its declared type; None: all values fit.

        Raises:
            SourceError: the source has no such column.
        """
        kind = self.types[self.column(name)]
        if dtype is None or not is_converted(kind, dtype) or not can_misfit(kind, dtype):
            return None
        return f"({quote(self.column(name))} IS NOT NULL AND ({self.feature_sql(name, dtype)}) IS NULL)"

    def time_sql(self, name: str) -> str:
        """Return SQL of a time column as int64 microseconds; naive times are UTC, as in Feast.

        Raises:
            SourceError: the column is missing or is not a time.
        """
        column = self.column(name)
        kind = self.types[column]
        if kind not in NAIVE | {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS", "DATE", '"NULL"'}:
            raise SourceError(
                f"{self.table.name} column {column!r}",
                "is not a time",
                value=kind,
                fix="write it as a timestamp (pyarrow: pa.timestamp('us', tz='UTC'))",
            )
        return to_microseconds(quote(column), kind)

    def count(self, connection: duckdb.DuckDBPyConnection, conditions: Mapping[str, str]) -> dict[str, int]:
        """Return the number of rows that meet each condition, by name; conditions without rows are omitted."""
        if not conditions:
            return {}
        counts = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions.values())
        with self.table.open(connection):
            query = f"SELECT {counts} FROM {self.table.relation}"
            (totals,) = connection.execute(query, self.table.parameters).fetchall()
        return {name: rows for name, rows in zip(conditions, totals, strict=True) if rows}


def _result_type(kind: str, dtype: DType) -> str:
    """Return the type in which a column of another type is read: its own, if that has each value of the declared type.

    >>> [_result_type("DOUBLE", dtype) for dtype in (DType.FLOAT32, DType.INT64)], _result_type("BIGINT", DType.FLOAT64)
    (['DOUBLE', 'DOUBLE'], 'DOUBLE')
    """
    if dtype in {DType.FLOAT32, DType.FLOAT64} and kind not in _OWN_TYPES - _INTEGERS:
        return "DOUBLE"  # a float32 or float64 that is near an integer or a decimal may not be one
    return kind if kind in _OWN_TYPES and dtype is not DType.STRING else dtype.sql


def view_source(config: RepoConfig, connection: duckdb.DuckDBPyConnection, view: View) -> HistorySource:
    """Return the batch source of a view.

    Raises:
        SourceError: the source is missing or corrupt, or of an unsupported kind.
    """
    table, source = view_table(config, view), view.batch_source
    mapping = {name: column for column, name in (source.field_mapping if source else {}).items()}
    return HistorySource(table=table, types=table.column_types(connection), mapping=mapping)


def view_table(config: RepoConfig, view: View) -> Table:
    """Return the table of a view's source; untyped columns get the view's types.

    Raises:
        SourceError: the file does not exist, or the source is of an unsupported kind.
    """
    types = declared_types(view, (*view.entity_columns, *view.features))
    return source_table(config, view.batch_source, f"feature view {view.name!r}", types)


def declared_types(view: View, fields: Iterable[Field]) -> dict[str, DType]:
    """Return the types that a view declares for the columns of its source, by column, for some of its fields."""
    mapping = {name: column for column, name in (view.batch_source.field_mapping if view.batch_source else {}).items()}
    types = {field.name: to_dtype(field.dtype) for field in fields}
    return {mapping.get(name, name): dtype for name, dtype in types.items() if dtype is not None}


@dataclass(frozen=True, kw_only=True)
class ViewHistory:
    """The history of a view's rows for a request.

    Args:
        source: the batch source.
        event, created: SQL of the event time and of the created time, microseconds.
        keys: column of the entity rows -> SQL of the key in the source, in the type of ``types``.
        types: column of the entity rows -> type in which keys are compared.
        features: SQL of each requested feature; ``columns`` has their names in the history.
        misfits: feature of the view -> SQL of whether its value does not fit its type; such rows are skipped, as
            materialization skips them.
        ttl_us: rows older than this do not match; 0: no limit.
    """

    source: HistorySource
    event: str
    created: str | None
    keys: Mapping[str, str]
    types: Mapping[str, str]
    features: tuple[str, ...]
    misfits: Mapping[str, str]
    ttl_us: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the features in the history."""
        return tuple(f"__f{i}" for i in range(len(self.features)))

    def select(self, position: str | None) -> str:
        """Return SQL of the source's rows, with keys, times and features under fixed names."""
        parts = [f"{expression} AS {quote(name)}" for name, expression in self.keys.items()]
        # A missing created time is the lowest (SEMANTICS 2.1).
        parts += [f"{self.event} AS {EVENT}", f"coalesce({self.created or 'NULL'}, {NO_TIME}) AS {CREATED}"]
        parts += [f"{expression} AS {name}" for expression, name in zip(self.features, self.columns, strict=True)]
        if position is not None:
            parts.append(f"{position} AS {_POSITION}")
        condition = " AND ".join(f"NOT {misfit}" for misfit in self.misfits.values())
        return f"SELECT {', '.join(parts)} FROM {self.source.table.relation}{' WHERE ' * bool(condition)}{condition}"

    def history(self, relation: str, row_id: str, *, as_known: bool) -> History:
        """Return the history on the relation of ``select``.

        Args:
            relation: SQL of the relation.
            row_id: SQL of a unique number of each row.
            as_known: a row is valid only from its created time on; rows without a created time never are.
        """
        is_known = as_known and self.created is not None
        # A forecast is written before its event time, and waits for it (SEMANTICS 2.5).
        known = f"CASE WHEN {CREATED} <> {NO_TIME} THEN greatest({EVENT}, {CREATED}) END"
        return History(
            relation=relation,
            keys=list(self.keys),
            row_id=row_id,
            columns=[*self.columns, EVENT],
            valid_from=known if is_known else EVENT,
            rank=[*([f"coalesce({EVENT}, 0)"] if is_known else ()), *([CREATED] if self.created else ())],
            running=is_known,
        )

    def count_skipped(self, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        """Return the number of skipped rows of the source, by reason."""
        reasons = {f"column {name!r} does not fit its declared type": sql for name, sql in self.misfits.items()}
        return self.source.count(connection, reasons)

    @contextmanager
    def open(
        self, connection: duckdb.DuckDBPyConnection, *, as_known: bool
    ) -> Iterator[tuple[History, list[Any], int]]:
        """Yield the history, its parameters and its number of rows, which can be read within the block."""
        table = self.source.table
        with table.open(connection):
            position = table.position_sql(connection)
            if position is not None:
                count = connection.execute(f"SELECT count(*) FROM {table.relation}", table.parameters).fetchall()
                history = self.history(f"({self.select(position)})", _POSITION, as_known=as_known)
                yield history, table.parameters, int(count[0][0])
                return
            # The source is read twice, for the match and for the values. Without a position, only a copy has the same
            # row ids in both.
            with copy_to_table(connection, "source_copy", self.select(None), table.parameters) as name:
                count = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
                yield self.history(name, "rowid", as_known=as_known), [], int(count[0][0])


def build_view_history(
    config: RepoConfig, connection: duckdb.DuckDBPyConnection, requested: RequestedView, entity_types: Mapping[str, str]
) -> ViewHistory:
    """Return the history of a view for entity rows with some columns.

    Args:
        entity_types: DuckDB's type of each column of the entity rows.

    Raises:
        SourceError: the source is missing or corrupt, or has no such column.
        RequestError: the entity rows have no such key, or a key of another type.
    """
    view = requested.view
    source = view_source(config, connection, view)
    # A view without entities has one constant key on both sides.
    keys, types = ({}, {}) if view.entity_columns else ({_CONSTANT_KEY: "''"}, {_CONSTANT_KEY: "VARCHAR"})
    for column in view.entity_columns:
        name = view.projection.join_key_map.get(column.name, column.name)
        if column.name == DUMMY_ENTITY_ID and name not in entity_types:
            keys[name], types[name] = "''", "VARCHAR"
            continue
        source_type = "VARCHAR" if column.name == DUMMY_ENTITY_ID else source.types[source.column(column.name)]
        types[name] = common_type(f"feature view {view.name!r}", name, entity_types, source_type)
        keys[name] = cast_key(source.key_sql(column.name), source_type, types[name])
    batch = view.batch_source
    declared = {field.name: to_dtype(field.dtype) for field in view.features}
    # Of all features, not only the requested ones: materialization rejects the complete row, so online an older row is
    # read.
    misfits = {name: source.misfit_sql(name, dtype) for name, dtype in declared.items()}
    return ViewHistory(
        source=source,
        event=source.time_sql(batch.timestamp_field),
        created=source.time_sql(batch.created_timestamp_column) if batch.created_timestamp_column else None,
        keys=keys,
        types=types,
        features=tuple(source.feature_sql(name, declared.get(name)) for name in requested.labels),
        misfits={name: misfit for name, misfit in misfits.items() if misfit},
        ttl_us=(view.ttl or timedelta(0)) // timedelta(microseconds=1),
    )


def check_feature_types(config: RepoConfig, view: View) -> None:
    """Check, at `feast apply`, that the types of a view's features fit the columns of its source.

    A source that is missing or unreadable is not checked here: materialization reports it.

    Raises:
        SourceError: a column has another type.
    """
    if not is_plain(view) or view.batch_source is None:
        return
    declared = declared_types(view, view.features)
    try:
        if not has_files(repo_of(config), readable_path(view.batch_source, f"feature view {view.name!r}")):
            return
        table = view_table(config, view)
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            connection.execute("SET enable_progress_bar = false")
            types = table.column_types(connection)
    except SourceError:
        return
    existing = {column: dtype for column, dtype in declared.items() if column in types}
    check_columns(table.name, types, existing, naive_is_utc=True, converted=existing)
