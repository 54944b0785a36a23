"""The folders and settings of a Feast project, and the columns of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.settings import Settings, load_settings
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.database_table import parse_database_address
from skewless.infra.reads.offline.sources import Table, find_table

NO_LAKES = "has a source that is a Delta table, which cannot be read"
EXPORT_LAKE = "export it as Parquet files, and use a FileSource of that folder without a file_format"


def repo_of(config: RepoConfig) -> Path:
    """Return the folder of a project's ``feature_store.yaml``; without one, the working folder."""
    return Path(config.repo_path or Path.cwd()).resolve()


def settings_of(config: RepoConfig) -> Settings:
    """Return the project's settings; ``redis_url`` and ``state`` of the online store's configuration take precedence.

    Raises:
        DefinitionError: a setting is unknown or has a wrong value.
    """
    settings = {name: getattr(config.online_store, name, None) for name in ("redis_url", "state")}
    return load_settings(repo_of(config), **{name: value for name, value in settings.items() if value is not None})


def state_of(config: RepoConfig) -> ProjectState:
    """Return the project's state."""
    return ProjectState.of(repo_of(config), settings_of(config))


def source_table(
    config: RepoConfig, source: DataSource | None, owner: str, declared: Mapping[str, DType] | None = None
) -> Table:
    """Return the table behind a batch source.

    Args:
        config: of the Feast repo.
        source: a batch source.
        owner: the thing that the source belongs to, for errors.
        declared: column types, for sources without types.

    Raises:
        SourceError: no file matches, or the kind of source cannot be read.
    """
    return find_table(repo_of(config), readable_path(source, owner), f"source of {owner}", declared)


def is_lake(source: DataSource) -> bool:
    """Return whether a file source is a Delta table: its folder also has files that are no longer part of it."""
    return isinstance(getattr(source, "file_format", None), DeltaFormat)


def readable_path(source: DataSource | None, owner: str) -> str:
    """Return the path or database address of a batch source.

    Raises:
        SourceError: the kind of source cannot be read.
    """
    path: str = getattr(source, "path", "")
    if source is not None and is_lake(source):
        raise SourceError(owner, NO_LAKES, value=path, fix=EXPORT_LAKE)
    if isinstance(source, FileSource) or parse_database_address(path) is not None:
        return path.removeprefix("file://")
    raise SourceError(
        owner,
        "has a batch source that cannot be read",
        value=type(source).__name__,
        fix="use a FileSource (Parquet or CSV file, folder or glob) or a DuckDBSource",
    )


def column_types(table: Table) -> list[tuple[str, str]]:
    """Return each column of a table with its Arrow type in Feast's spelling.

    Raises:
        SourceError: the table cannot be read.
    """
    return [(field.name, str(_simplify(field.type))) for field in read_schema(table)]


def check_source(table: Table, source: DataSource) -> None:
    """Check that a source can be read and has its time columns.

    Raises:
        SourceError: it cannot be read, or lacks a column.
    """
    names = read_schema(table).names
    column_by_name = {name: column for column, name in (source.field_mapping or {}).items()}
    for column in (source.timestamp_field, source.created_timestamp_column):
        if column and column_by_name.get(column, column) not in names:
            raise SourceError(table.name, "has no such column", value=column, fix=f"use one of: {', '.join(names)}")


def read_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table as DuckDB reads it.

    Raises:
        SourceError: the table cannot be read.
    """
    with duckdb.connect(":memory:", config={"threads": 1}) as connection, table.reading(connection):
        # Otherwise the types of times would depend on the machine's zone.
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        query = f"SELECT * FROM {table.relation} LIMIT 0"
        return connection.sql(query, params=table.parameters).to_arrow_table().schema


def _simplify(kind: pa.DataType) -> pa.DataType:
    """Return a type without DuckDB's own variants: names of list items, enums, decimals, dates."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.field("item", _simplify(kind.value_type)))
    if pa.types.is_dictionary(kind):
        return _simplify(kind.value_type)
    if pa.types.is_decimal(kind):
        return pa.float64()
    return pa.timestamp("us") if pa.types.is_date(kind) else kind
