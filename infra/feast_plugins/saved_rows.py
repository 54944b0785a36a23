"""Write rows to Parquet files and DuckDB tables: saved datasets, appended rows, logs of served features."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.repo_config import RepoConfig

from skewless.contract.errors import SourceError
from skewless.infra.offline.database_table import DatabaseTable, parse_database_address
from skewless.infra.offline.sql import quote
from skewless.infra.sources.place import repo_of
from skewless.infra.sources.source_schema import readable_path
from skewless.infra.storage.durable import disk_error, sync_folder


def save_rows(config: RepoConfig, rows: pa.RecordBatchReader, target: DataSource, *, overwrite: bool) -> None:
    """Write rows to a file, folder or database table, atomically.

    Args:
        overwrite: whether to replace an existing target.

    Raises:
        SavedDatasetLocationAlreadyExists: the target exists, and ``overwrite`` is false.
        SourceError: the target is of an unsupported kind.
        StoreError: the disk failed.
    """
    path = readable_path(target, "saved dataset")
    warehouse = parse_database_address(path)
    if warehouse is not None:
        _save_table(repo_of(config), warehouse, rows, overwrite=overwrite)
        return
    target_path = repo_of(config) / path
    if target_path.exists() and not overwrite:
        raise SavedDatasetLocationAlreadyExists(location=path)
    if target_path.suffix == ".parquet":
        write_file(target_path, rows)
        return
    old = sorted(target_path.rglob("*.parquet")) if target_path.exists() else []
    # New rows before old files are deleted: a kill in between leaves too many rows, and not too few.
    write_file(target_path / "part-000000.parquet", rows)
    for file in old:
        if file.name != "part-000000.parquet":
            file.unlink()


def write_file(path: Path, rows: pa.RecordBatchReader) -> None:
    """Write a Parquet file batch by batch; it gets its name when it is complete and synced to disk.

    Raises:
        StoreError: the disk failed.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            with pq.ParquetWriter(handle, rows.schema) as writer:
                for batch in rows:
                    writer.write_batch(batch)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def insert_rows(repo: Path, warehouse: DatabaseTable, rows: pa.Table) -> None:
    """Append rows to a table of a DuckDB database, column by name.

    Raises:
        SourceError: the table is a view or has other columns, or another process has the database open.
    """
    target = ".".join(quote(part) for part in warehouse.parts)
    _write(repo, warehouse, rows, [f"INSERT INTO {target} BY NAME SELECT * FROM new_rows"])


def _save_table(repo: Path, warehouse: DatabaseTable, rows: pa.RecordBatchReader, *, overwrite: bool) -> None:
    schema, table = warehouse.parts
    create = "CREATE OR REPLACE TABLE" if overwrite else "CREATE TABLE"
    statements = [
        f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}",
        f"{create} {quote(schema)}.{quote(table)} AS SELECT * FROM new_rows",
    ]
    try:
        _write(repo, warehouse, rows, statements)
    except SourceError as error:
        if isinstance(error.__cause__, duckdb.CatalogException) and not overwrite:
            raise SavedDatasetLocationAlreadyExists(location=warehouse.address) from error
        raise


def _write(repo: Path, warehouse: DatabaseTable, rows: pa.Table | pa.RecordBatchReader, statements: list[str]) -> None:
    path = repo / warehouse.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("new_rows", rows)
            # All or nothing: after a failed statement, closing the connection rolls the transaction back.
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
    except duckdb.Error as error:
        raise SourceError(
            f"table {warehouse.table!r} of database {warehouse.path!r}",
            f"cannot be written: {str(error).splitlines()[0]}",
            fix="close other programs that have the database open, and give the rows the table's columns",
        ) from error
