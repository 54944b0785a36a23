"""Find the files of a user's tables, their columns, and whether they have changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from skewless.contract.columns import digest
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.plan import View
from skewless.infra.reads.offline.database_table import DatabaseTable, parse_database_address
from skewless.infra.reads.offline.source_columns import EXACT, view_columns
from skewless.infra.reads.offline.sql import sql_literal

_MISFIT = re.compile(
    r"CSV Error on Line: (?P<line>\d+).*?"
    r'converting column "(?P<column>.*?)"\. Could not convert string "(?P<value>.*?)" to \'(?P<type>.*?)\'',
    re.DOTALL,
)
_TEXT_FILES = (".csv", ".csv.gz")
ORDER = "__order"
_FILE_COLUMNS = frozenset({"file_index", "file_row_number"})
_ROW_BITS = 40
# DuckDB numbers rows in the order of their files, in one thread, whatever ``preserve_insertion_order`` is.
_AS_READ = "row_number() OVER ()"
NO_STORES = "is in an object store, which cannot be read"
USE_FILES = "copy it to a folder of this machine, or mount the bucket, and give that path"
PARTS = ".parts"  # suffix of the folder with the rows that were appended to a Parquet file


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of Parquet or CSV files, or a table in a DuckDB database.

    Read it within ``open``, which attaches a database.

    Args:
        name: name of the table in errors.
        files: absolute paths, sorted; for a database, its file.
        partitions: columns in the names of folders (``key=value``).
        declared: types of columns without a type (CSV, partitions).
        warehouse: the table, if it is in a database.
        columns_of: files that determine the columns; empty: ``files``.
        file_numbers: number of each file among all files of the source; empty: its number in ``files``.
    """

    name: str
    files: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    declared: Mapping[str, DType] = field(default_factory=dict)
    warehouse: DatabaseTable | None = None
    columns_of: tuple[str, ...] = ()
    file_numbers: tuple[int, ...] = ()

    @property
    def relation(self) -> str:
        """Return the SQL after FROM; bind ``parameters`` to it."""
        if self.warehouse is not None:
            return self.warehouse.relation
        reader = self._reader()
        # The empty first half reads no row. It adds the columns of all files, which the chosen files may lack.
        return f"(FROM {reader} WHERE false UNION ALL BY NAME FROM {reader})" if self.columns_of else reader

    @property
    def parameters(self) -> list[Any]:
        """Return the values of the relation's parameters, in order."""
        if self.warehouse is not None:
            return []
        return [list(files) for files in (self.columns_of, self.files) if files]

    @property
    def literal(self) -> str:
        """Return the relation with literals instead of parameters."""
        return self.relation.replace("?", f"[{', '.join(sql_literal(file) for file in self.files)}]", 1)

    @property
    def is_text(self) -> bool:
        """Say whether the files are CSV."""
        return self.warehouse is None and self.files[0].endswith(_TEXT_FILES)

    @contextmanager
    def open(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Make the relation readable on a connection within the block; may be nested.

        Raises:
            SourceError: the database cannot be opened.
        """
        if self.warehouse is None:
            yield
            return
        with self.warehouse.attach(connection, self.name):
            yield

    @contextmanager
    def reading(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Make the relation readable as ``open``; the block reads nothing else.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            with self.open(connection):
                yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise read_error(self.name, error) from error

    def fingerprint(self) -> str:
        """Return a hash of the current files: paths, sizes and modification times."""
        return digest(list(self.fingerprints().items()))

    def fingerprints(self) -> dict[str, str]:
        """Return a hash of size and modification time of each file, by path."""
        # DuckDB commits to the write-ahead log; the database file itself changes only at a checkpoint.
        logs = [file for file in (f"{self.files[0]}.wal",) if self.warehouse is not None and Path(file).exists()]
        # Only a hint: the rows of a file that looks changed are compared with the log, so a copied file brings nothing
        # new.
        stats = {path: Path(path).stat() for path in (*self.files, *logs)}
        return {path: digest([stat.st_size, stat.st_mtime_ns]) for path, stat in stats.items()}

    def split(self, chosen: Collection[str]) -> tuple[Self | None, Self | None]:
        """Return two tables: the chosen files and the other files; None for a table without files.

        Both have the columns of the whole table: a column that a file does not have is null.
        """
        if self.warehouse is not None:
            # Rows of a table have no file of their own, so any change of the database makes all its rows new to
            # compare.
            return (self, None) if chosen else (None, self)
        parts = [[i for i, file in enumerate(self.files) if (file in chosen) is expected] for expected in (True, False)]
        first, other = (self._part(numbers) if numbers else None for numbers in parts)
        return (self, None) if other is None else (None, self) if first is None else (first, other)

    def column_types(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Return DuckDB's type of each column.

        Raises:
            SourceError: a file is corrupt.
        """
        try:
            with self.open(connection):
                return self._described(connection)
        except duckdb.BinderException:
            # A declared column is in no CSV file: the caller reports it by name.
            return replace(self, declared={}).column_types(connection) if self.is_text and self.declared else {}
        except duckdb.Error as error:
            raise read_error(self.name, error) from error

    def ordered_sql(self, connection: duckdb.DuckDBPyConnection, columns: Collection[str]) -> str:
        """Return the relation with one more column, BIGINT ``__order``: the file order of the rows.

        This is the order by path of the file and position in the file; for a table of a database, by ``rowid``. Views,
        and files with a column named like DuckDB's ``file_index``, have the order in which DuckDB yields rows.

        Args:
            columns: columns of the relation.
        """
        if self.warehouse is not None:
            return f"(SELECT *, {self.position_sql(connection) or _AS_READ} AS {ORDER} FROM {self.relation})"
        reader = self._reader()
        rows = (
            f"SELECT *, {_AS_READ if _FILE_COLUMNS & set(columns) else self._file_position()} AS {ORDER} FROM {reader}"
        )
        return f"(FROM {reader} WHERE false UNION ALL BY NAME {rows})" if self.columns_of else f"({rows})"

    def _file_position(self) -> str:
        numbers = ", ".join(map(str, self.file_numbers))
        file = f"[{numbers}][CAST(file_index AS BIGINT) + 1]" if numbers else "file_index"
        row = _AS_READ if self.is_text else "file_row_number"
        return f"(CAST({file} AS BIGINT) << {_ROW_BITS}) + {row}"

    def count_rows(self, connection: duckdb.DuckDBPyConnection) -> int | None:
        """Return the number of rows without reading them; None for text, which would have to be read.

        Raises:
            SourceError: a file is corrupt.
        """
        if self.is_text:
            return None
        with self.reading(connection):
            ((count,),) = connection.execute(f"SELECT count(*) FROM {self.relation}", self.parameters).fetchall()
        return int(count)

    def position_sql(self, connection: duckdb.DuckDBPyConnection) -> str | None:
        """Return SQL of a BIGINT that identifies each row of the relation, or None if rows have no position."""
        if self.warehouse is not None:
            return "rowid" if self._has_column(connection, "rowid") else None
        if self.is_text or _FILE_COLUMNS & set(self.column_types(connection)):
            return None
        return self._file_position()

    def _part(self, numbers: Sequence[int]) -> Self:
        files = tuple(self.files[number] for number in numbers)
        return replace(self, files=files, columns_of=self.files, file_numbers=tuple(numbers))

    def _reader(self) -> str:
        if self.is_text:
            return f"read_csv(?, union_by_name = true, header = true{_types('types', self.declared, self.declared)})"
        hive = _types("hive_types", self.declared, self.partitions)
        return f"read_parquet(?, union_by_name = true, hive_partitioning = {str(bool(self.partitions)).lower()}{hive})"

    def _described(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        rows = connection.execute(f"DESCRIBE SELECT * FROM {self.relation}", self.parameters).fetchall()
        return {row[0]: row[1] for row in rows}

    def _has_column(self, connection: duckdb.DuckDBPyConnection, column: str) -> bool:
        try:
            with self.open(connection):
                connection.execute(f"SELECT {column} FROM {self.relation} LIMIT 0", self.parameters)
        except duckdb.BinderException:
            return False
        return True


def find_table(repo: Path, path: str, name: str, declared: Mapping[str, DType] | None = None) -> Table:
    """Return the table at a path, folder, glob or database address, relative to the repo.

    Args:
        name: name of the table in errors.
        declared: types of the columns, for sources without types.

    Raises:
        SourceError: the file does not exist, or is in an object store.
    """
    if is_remote(path):
        raise SourceError(name, NO_STORES, value=path, fix=USE_FILES)
    warehouse, full = parse_database_address(path), _full_path(repo, path)
    files = tuple(sorted(str(file) for file in _files(full)))
    if not files:
        raise SourceError(
            name, "has no file", value=path, fix="put the file there, or correct the path in the definition"
        )
    if warehouse is not None:
        return Table(name=name, files=files, warehouse=replace(warehouse, path=files[0]))
    return Table(name=name, files=files, partitions=_partitions(_root(full), files), declared=dict(declared or {}))


def has_files(repo: Path, path: str) -> bool:
    """Say whether a path, folder, glob or database address, relative to the repo, has files."""
    return not is_remote(path) and any(True for _ in _files(_full_path(repo, path)))


def is_remote(path: str) -> bool:
    """Say whether a path is the address of an object store.

    >>> is_remote("s3://bucket/users.parquet"), is_remote("data/*.parquet"), is_remote("duckdb:w.db#t")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def _full_path(repo: Path, path: str) -> Path:
    warehouse = parse_database_address(path)
    return repo / (warehouse.path if warehouse else path)


def view_table(repo: Path, view: View) -> Table:
    """Return the table of a view's source; untyped columns get the view's types.

    Raises:
        SourceError: the file does not exist.
    """
    return find_table(repo, view.source.path, f"source of view {view.name!r}", view_columns(view))


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        parquet = list(path.rglob("*.parquet"))
        return parquet or [file for file in path.rglob("*.csv*") if file.name.endswith(_TEXT_FILES)]
    if path.exists():
        # The file of the user is never rewritten: rows that Feast appends are in a folder next to it.
        return [path, *Path(f"{path}{PARTS}").glob("*.parquet")]
    return glob_files(path)


def glob_files(path: Path) -> Iterator[Path]:
    """Yield the files of an absolute glob, in any order.

    Two asterisks within a name are one, as in Python 3.13; before, they were a ValueError.
    """
    parts = [part if part == "**" else re.sub(r"\*{2,}", "*", part) for part in path.parts[1:]]
    return Path(path.anchor).glob(str(Path(*parts)))


def _root(path: Path) -> Path:
    """Return the folder that is searched for files."""
    if path.is_dir():
        return path
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return Path(*parts[:first])


def _partitions(root: Path, files: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of ``key=value`` folders below a root, if they are the same for all files."""
    keys = {
        tuple(part.partition("=")[0] for part in Path(file).relative_to(root).parent.parts if "=" in part)
        for file in files
    }
    return keys.pop() if len(keys) == 1 else ()


def _types(option: str, declared: Mapping[str, DType], columns: Iterable[str]) -> str:
    """Return DuckDB's option for column types, without times: DuckDB must detect whether they have a zone."""
    known = [name for name in columns if declared.get(name, DType.TIMESTAMP) is not DType.TIMESTAMP]
    # DuckDB would round the text 1.5 to the integer 2, and read 0x10 as 16.
    exact = {DType.INT32, DType.INT64} if option == "types" else set()
    types = {name: EXACT if declared[name] in exact else declared[name].sql for name in known}
    pairs = ", ".join(f"{sql_literal(name)}: '{kind}'" for name, kind in types.items())
    return f", {option} = {{{pairs}}}" if known else ""


def read_error(name: str, error: Exception) -> SourceError:
    """Return the error for a table that DuckDB cannot read, with line, column and value if DuckDB reports them."""
    misfit = _MISFIT.search(str(error))
    if misfit is not None:
        return SourceError(
            f"{name} column {misfit['column']!r}",
            f"cannot be read as {misfit['type'].replace('DECIMAL', 'an integer')} on line {misfit['line']}",
            value=misfit["value"],
            fix="correct the file, or declare the column with the type that it has",
        )
    reason = str(error).splitlines()[0]
    if isinstance(error, duckdb.CatalogException):
        return SourceError(name, f"cannot be read: {reason}", fix="create the table, or correct its name")
    return SourceError(name, f"cannot be read: {reason}", fix="write the file again, or remove it")
