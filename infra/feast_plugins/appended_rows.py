"""Rows appended to the source of a view: new files beside the old ones, which are never written again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast.repo_config import RepoConfig

from skewless.contract.errors import SourceError
from skewless.infra.feast_plugins.feature_history import view_table
from skewless.infra.feast_plugins.requested_features import Table as View
from skewless.infra.feast_plugins.saved_rows import insert_rows, write_file
from skewless.infra.offline.sources import PARTS, Table
from skewless.infra.sources.place import repo_of
from skewless.infra.sources.source_schema import read_schema, readable_path


def append_rows(config: RepoConfig, view: View, rows: pa.Table) -> None:
    """Append rows to a view's batch source; no file that is there is touched.

    A folder gets a new file, a partitioned one a file for each partition, a single file ``F`` a new file in the
    folder ``F.parts`` beside it, which we read with it, and a DuckDB table new rows.

    Args:
        rows: the source's columns in any order; numbers may be wider where no value is lost.

    Raises:
        SourceError: the columns or types differ, or the source cannot be appended to.
        StoreError: the disk refused.
    """
    table = view_table(config, view)
    fitted = fit_rows(table, _file_schema(table), rows)
    if table.warehouse is not None:
        insert_rows(repo_of(config), table.warehouse, fitted)
        return
    if table.is_text:
        raise SourceError(
            table.name, "is CSV, which cannot be appended to", value=table.files[0], fix="keep the source as Parquet"
        )
    place = repo_of(config) / readable_path(view.batch_source, view.name)
    if table.partitions:
        write_partitions(_below(place, table), fitted, table.partitions)
        return
    folder = Path(f"{place}{PARTS}") if place.is_file() else _below(place, table)
    target = folder / new_name(folder)
    if not place.exists() and not target.match(str(place)):
        raise SourceError(
            table.name, "has a pattern that a new file would not match", value=str(place), fix="let it end in *.parquet"
        )
    write_file(target, reader(fitted))


def fit_rows(table: Table, schema: pa.Schema, rows: pa.Table) -> pa.Table:
    """Return rows with a source's columns, in its order and of its types, exact.

    Raises:
        SourceError: a column is missing, unknown, or holds a value that does not fit.
    """
    if sorted(rows.column_names) != sorted(schema.names):
        raise SourceError(
            table.name,
            "has other columns than the rows that are to be appended",
            value=", ".join(sorted(set(rows.column_names) ^ set(schema.names))),
            fix=f"give exactly {', '.join(schema.names)}",
        )
    return pa.table([_fitted(table, field, rows[field.name]) for field in schema], schema=schema)


def write_partitions(root: Path, rows: pa.Table, partitions: Sequence[str]) -> None:
    """Write rows as one new file in the ``key=value`` folder of each partition."""
    for key in rows.select(list(partitions)).group_by(list(partitions)).aggregate([]).to_pylist():
        kept = rows
        for name, value in key.items():
            column = kept[name]
            kept = kept.filter(column.is_null() if value is None else pc.equal(column, pa.scalar(value, column.type)))
        folder = root.joinpath(*(_segment(name, value) for name, value in key.items()))
        write_file(folder / new_name(folder), reader(kept.drop_columns(list(partitions))))


def write_log(root: Path, data: pa.Table | Path, partitions: Sequence[str]) -> None:
    """Append served features to a folder of Parquet files.

    Args:
        data: rows, or a folder of Parquet files with rows.
    """
    rows = data if isinstance(data, pa.Table) else ds.dataset(data, format="parquet").to_table()
    if partitions:
        write_partitions(root, rows, partitions)
    elif rows.num_rows:
        write_file(root / new_name(root), reader(rows))


def new_name(folder: Path) -> str:
    """Return a name for a new file that sorts after those of the same kind, and that nobody else chooses."""
    return f"rows-{len(list(folder.glob('*.parquet'))):06d}-{uuid4().hex}.parquet"


def reader(rows: pa.Table) -> pa.RecordBatchReader:
    """Return rows as a stream."""
    return pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())


def _file_schema(table: Table) -> pa.Schema:
    """Return the columns and types that new rows must have: a file's own, since DuckDB renames some types."""
    if table.warehouse is not None or table.is_text:
        return read_schema(table)
    own = pq.read_schema(table.files[0]).remove_metadata()
    known = read_schema(table)
    for name in table.partitions:
        own = own.append(known.field(name))
    return own


def _fitted(table: Table, field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        # A pandas column of integers with a null comes as float64, a time without zone as one that is UTC.
        if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(field.type):
            return column.cast(field.type, safe=False)
        raise SourceError(
            f"{table.name} column {field.name!r}",
            f"cannot take the rows that are to be appended: {str(error).splitlines()[0]}",
            value=str(column.type),
            fix=f"give values that {field.type} can hold",
        ) from error


def _below(place: Path, table: Table) -> Path:
    """Return the folder that new files go to: the source's own, or that of its last file for a pattern."""
    if place.is_dir():
        return place
    depth = len(table.partitions) + 1
    return Path(table.files[-1]).parents[depth - 1]


def _segment(name: str, value: object) -> str:
    return f"{name}={'__HIVE_DEFAULT_PARTITION__' if value is None else value}"
