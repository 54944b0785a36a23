"""Write rows to Parquet files: saved datasets, appended rows (to DuckDB tables, too), logs of served features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.repo_config import RepoConfig

from skewless.contract.arrow_types import cast_times
from skewless.contract.errors import SourceError
from skewless.infra.definitions.sources.source_schema import read_schema, readable_path, repo_of
from skewless.infra.platform.storage.durable import remove_at_end, sync_file, sync_folder, translate_disk_errors
from skewless.infra.reads.offline.database_table import DatabaseTable
from skewless.infra.reads.offline.sources import PARTS, Table
from skewless.infra.reads.offline.sql import quote
from skewless_feast.feature_history import view_table
from skewless_feast.requested_features import Table as View

_FIRST = "rows-"
_APPENDED = re.compile(r"(.*)rows-(?!9{6})(\d{6})-[0-9a-f]{32}\.parquet", re.DOTALL)


def save_rows(config: RepoConfig, rows: pa.Table, target: DataSource, *, overwrite: bool) -> None:
    """Write rows to a file or folder, atomically.

    Args:
        overwrite: whether to replace an existing target.

    Raises:
        SavedDatasetLocationAlreadyExists: the target exists, and ``overwrite`` is false.
        SourceError: the target is of an unsupported kind.
        StoreError: the disk failed.
    """
    path = readable_path(target, "saved dataset")
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


def write_file(path: Path, rows: pa.Table) -> None:
    """Write a Parquet file; it gets its name when it is complete and synced to disk.

    Raises:
        StoreError: the disk failed.
    """
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with translate_disk_errors(path), remove_at_end(unfinished) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, temporary)
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)


def _insert(repo: Path, warehouse: DatabaseTable, rows: pa.Table) -> None:
    try:
        with duckdb.connect(str(repo / warehouse.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            connection.register("new_rows", rows)
            name = ".".join(quote(part) for part in warehouse.parts)
            connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM new_rows")
    except duckdb.Error as error:
        raise SourceError(
            f"table {warehouse.table!r} of database {warehouse.path!r}",
            f"cannot be written: {str(error).splitlines()[0]}",
            fix="close other programs that have the database open, and give the rows the table's columns",
        ) from error


def append_rows(config: RepoConfig, view: View, rows: pa.Table) -> None:
    """Append rows to a view's batch source without changing existing files.

    A folder gets a new file, and a partitioned folder a file per partition. For a single file ``F``, the new file is in
    the folder ``F.parts``, which is read with ``F``. A DuckDB table gets new rows.

    Args:
        rows: the source's columns in any order; numbers may have a wider type if all values fit.

    Raises:
        SourceError: the columns or types differ, or rows cannot be appended to the source.
        StoreError: the disk failed.
    """
    table = view_table(config, view)
    new_rows = fit_rows(table, _file_schema(table), rows)
    if table.warehouse is not None:
        _insert(repo_of(config), table.warehouse, new_rows)
        return
    if table.is_text:
        raise SourceError(
            table.name,
            "is CSV, to which rows cannot be appended",
            value=table.files[0],
            fix="keep the source as Parquet",
        )
    path = repo_of(config) / readable_path(view.batch_source, view.name)
    if table.partitions:
        write_partitions(_target_folder(path, table), new_rows, table.partitions)
        return
    folder = Path(f"{path}{PARTS}") if path.is_file() else _target_folder(path, table)
    target = folder / new_file_name(folder)
    # The path is a pattern: a file that it does not match would never be read.
    if not path.exists() and not target.match(str(path)):
        raise SourceError(
            table.name,
            "has a pattern that a new file would not match",
            value=str(path),
            fix="use a pattern that ends in *.parquet",
        )
    write_file(target, new_rows)


def fit_rows(table: Table, schema: pa.Schema, rows: pa.Table) -> pa.Table:
    """Return rows in a source's column order and types, without changing a value.

    Raises:
        SourceError: a column is missing or unknown, or a value does not fit its type.
    """
    if sorted(rows.column_names) != sorted(schema.names):
        raise SourceError(
            table.name,
            "has other columns than the new rows",
            value=", ".join(sorted(set(rows.column_names) ^ set(schema.names))),
            fix=f"give exactly the columns {', '.join(schema.names)}",
        )
    return pa.table([_fit_column(table, field, rows[field.name]) for field in schema], schema=schema)


def write_partitions(root: Path, rows: pa.Table, partitions: Sequence[str]) -> None:
    """Write rows as one new file in the ``key=value`` folder of each partition."""
    for key in rows.select(list(partitions)).group_by(list(partitions)).aggregate([]).to_pylist():
        selected, folder = rows, root
        for name, value in key.items():
            column = selected[name]
            selected = selected.filter(
                column.is_null() if value is None else pc.equal(column, pa.scalar(value, column.type))
            )
            folder /= f"{name}={'__HIVE_DEFAULT_PARTITION__' if value is None else value}"
        write_file(folder / new_file_name(folder), selected.drop_columns(list(partitions)))


def write_log(root: Path, data: pa.Table | Path, partitions: Sequence[str]) -> None:
    """Append served features to a folder of Parquet files.

    Args:
        data: rows, or a folder of Parquet files with rows.
    """
    rows = data if isinstance(data, pa.Table) else ds.dataset(data, format="parquet").to_table()
    if partitions:
        write_partitions(root, rows, partitions)
    elif rows.num_rows:
        write_file(root / new_file_name(root), rows)


def new_file_name(folder: Path) -> str:
    """Return a unique name for a new file that sorts after the existing files."""
    # Of exact ties the row of the later file wins (SEMANTICS 2.1.1), so a later write has a later name.
    last = max((path.relative_to(folder).parts[0] for path in folder.rglob("*.parquet")), default="")
    prefix, number = "", 0
    if match := _APPENDED.fullmatch(last):
        prefix, number = match[1], int(match[2]) + 1
    elif last >= _FIRST:
        # A tilde sorts after the dot or the slash that follows this part of a user's file name.
        prefix = f"{last.removesuffix('.parquet')}~"
    return f"{prefix}rows-{number:06d}-{uuid4().hex}.parquet"


def _file_schema(table: Table) -> pa.Schema:
    """Return the columns and types of a source's files; from a file itself, since DuckDB changes some types."""
    if table.warehouse is not None or table.is_text:
        return read_schema(table)
    own = pq.read_schema(table.files[0]).remove_metadata()
    schema = read_schema(table)
    for name in table.partitions:
        own = own.append(schema.field(name))
    return own


def _fit_column(table: Table, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        # Times may have another unit or zone: convert these; other columns must fit exactly.
        if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(field.type):
            return cast_times(column, field.type)
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise SourceError(
            f"{table.name} column {field.name!r}",
            f"does not fit the new rows: {str(error).splitlines()[0]}",
            value=str(column.type),
            fix=f"give values of type {field.type}",
        ) from error


def _target_folder(path: Path, table: Table) -> Path:
    """Return the folder for new files: the source's folder, or the folder of its last file for a pattern."""
    if path.is_dir():
        return path
    depth = len(table.partitions) + 1
    return Path(table.files[-1]).parents[depth - 1]
