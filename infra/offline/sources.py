"""The user's own tables: which files they are, what columns they have, and whether they changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from skewless.dtypes import DType
from skewless.errors import SourceError
from skewless.plan import View, digest

_ZONED = "TIMESTAMP WITH TIME ZONE"
_ALL_NULL = '"NULL"'  # a Parquet column that never held a value, as pandas writes it
_ACCEPTED = {
    DType.INT32: {"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "BIGINT", "DOUBLE"},
    DType.INT64: {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "DOUBLE"},
    DType.FLOAT32: {"FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER"},
    DType.FLOAT64: {"FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"},
    DType.BOOL: {"BOOLEAN"},
    DType.STRING: {"VARCHAR"},
    DType.BYTES: {"BLOB"},
    DType.TIMESTAMP: {_ZONED, "TIMESTAMPTZ_NS", "DATE"},
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of Parquet or CSV files.

    Args:
        name: how errors call it.
        files: absolute paths, sorted.
    """

    name: str
    files: tuple[str, ...]

    @property
    def relation(self) -> str:
        """Return the table function that reads it; bind ``list(files)`` to its parameter."""
        if self.files[0].endswith((".csv", ".csv.gz")):
            return "read_csv(?, union_by_name = true)"
        return "read_parquet(?, union_by_name = true, hive_partitioning = false)"

    def fingerprint(self) -> str:
        """Return the identity of the files as they are now: path, size and time of change."""
        return digest([[path, (stat := Path(path).stat()).st_size, stat.st_mtime_ns] for path in self.files])

    def column_types(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Return DuckDB's type of each column.

        Raises:
            SourceError: a file is broken.
        """
        try:
            rows = connection.execute(f"DESCRIBE SELECT * FROM {self.relation}", [list(self.files)]).fetchall()
        except duckdb.Error as error:
            raise broken(self.name, error) from error
        return {row[0]: row[1] for row in rows}


def find_table(repo: Path, path: str, name: str) -> Table:
    """Return the files behind a path, folder or glob, relative to the repo.

    Raises:
        SourceError: there is no such file.
    """
    full = Path(path) if Path(path).is_absolute() else repo / path
    files = tuple(sorted(str(file) for file in _files(full)))
    if not files:
        raise SourceError(
            name, "has no file", value=path, fix="put the file there, or correct the path in the definition"
        )
    return Table(name=name, files=files)


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return path.rglob("*.parquet")
    if path.exists():
        return [path]
    return Path(path.anchor).glob(str(path.relative_to(path.anchor)))


def broken(name: str, error: duckdb.Error) -> SourceError:
    """Return the error for a table that DuckDB could not read."""
    return SourceError(name, f"cannot be read: {str(error).splitlines()[0]}", fix="write the file again, or remove it")


def check_columns(table: Table, types: Mapping[str, str], wanted: Mapping[str, DType]) -> None:
    """Check that a table has the columns that the plan names, with types that fit exactly.

    Raises:
        SourceError: a column is missing, has no time zone, or is of another type.
    """
    for column, dtype in wanted.items():
        if column not in types:
            raise SourceError(
                table.name,
                "has no such column",
                value=column,
                fix=f"correct the definition, or add the column; it has {', '.join(types)}",
            )
        if types[column] in {"TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"} and dtype is DType.TIMESTAMP:
            raise SourceError(
                f"{table.name} column {column!r}",
                "is a time without a zone",
                value=types[column],
                fix="write it with zone UTC (pyarrow: pa.timestamp('us', tz='UTC'))",
            )
        if types[column] not in _ACCEPTED[dtype] | {_ALL_NULL}:
            raise SourceError(
                f"{table.name} column {column!r}",
                f"does not fit the declared type {dtype}",
                value=types[column],
                fix="correct the definition, or write the column with that type",
            )


def view_columns(view: View) -> dict[str, DType]:
    """Return the source columns that a view reads, with the types that they must fit."""
    source = view.source
    wanted = {source.column(column.name): column.dtype for column in (*view.keys, *view.features)}
    wanted[source.event_column] = DType.TIMESTAMP
    if source.created_column:
        wanted[source.created_column] = DType.TIMESTAMP
    if source.tombstone_column:
        wanted[source.tombstone_column] = DType.BOOL
    return wanted
