"""The user's own tables: which files they are, what columns they have, and whether they changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import duckdb

from skewless.contract.columns import digest
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.plan import View
from skewless.infra.offline.database_table import DatabaseTable, find_warehouse
from skewless.infra.offline.source_columns import view_columns
from skewless.infra.offline.sql import text

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
NO_STORES = "lies in an object store, which cannot be read"
USE_FILES = "copy it to a folder of this machine, or mount the bucket, and give that path"
PARTS = ".parts"  # folder beside a Parquet file, named after it, with the rows appended to it


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of Parquet or CSV files, or one inside a DuckDB database.

    Read it within ``opened``: a database is attached only there.

    Args:
        name: how errors call it.
        files: absolute paths, sorted; of a database, the database's.
        partitions: columns that stand in the folders' names (``key=value``).
        declared: types that columns without a type of their own (CSV, partitions) are read as.
        warehouse: the table, if it lies in a database.
        columns_of: files that tell which columns there are; by default those that are read.
        places: of each file its place among the sorted files of the whole source; by default that among the files.
    """

    name: str
    files: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    declared: Mapping[str, DType] = field(default_factory=dict)
    warehouse: DatabaseTable | None = None
    columns_of: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def relation(self) -> str:
        """Return what stands after FROM; bind ``parameters`` to it."""
        if self.warehouse is not None:
            return self.warehouse.relation
        reader = self._reader()
        return f"(FROM {reader} WHERE false UNION ALL BY NAME FROM {reader})" if self.columns_of else reader

    @property
    def parameters(self) -> list[Any]:
        """Return the values of the relation's parameters, in order."""
        if self.warehouse is not None:
            return []
        return [list(files) for files in (self.columns_of, self.files) if files]

    @property
    def literal(self) -> str:
        """Return the relation with its parameters written out."""
        return self.relation.replace("?", f"[{', '.join(text(file) for file in self.files)}]", 1)

    @property
    def is_text(self) -> bool:
        """Say whether it is CSV."""
        return self.warehouse is None and self.files[0].endswith(_TEXT_FILES)

    @contextmanager
    def opened(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Make the relation readable on a connection for a while; may be nested.

        Raises:
            SourceError: the database cannot be opened.
        """
        if self.warehouse is None:
            yield
            return
        with self.warehouse.attached(connection, self.name):
            yield

    def fingerprint(self) -> str:
        """Return the identity of the files as they are now: path, size and time of change."""
        return digest(list(self.fingerprints().items()))

    def fingerprints(self) -> dict[str, str]:
        """Return the identity of each file as it is now, by its path."""
        logs = [file for file in (f"{self.files[0]}.wal",) if self.warehouse is not None and Path(file).exists()]
        stats = {path: Path(path).stat() for path in (*self.files, *logs)}
        return {path: digest([stat.st_size, stat.st_mtime_ns]) for path, stat in stats.items()}

    def split(self, chosen: Collection[str]) -> tuple[Self | None, Self | None]:
        """Return the table of some of the files and that of the others, None where there is none.

        Both have the columns of the whole: what a file lacks is null, whoever its neighbours are.
        """
        if self.warehouse is not None:
            return (self, None) if chosen else (None, self)
        parts = [[i for i, file in enumerate(self.files) if (file in chosen) is wanted] for wanted in (True, False)]
        first, other = (self._part(places) if places else None for places in parts)
        return (self, None) if other is None else (None, self) if first is None else (first, other)

    def column_types(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Return DuckDB's type of each column.

        Raises:
            SourceError: a file is broken.
        """
        try:
            with self.opened(connection):
                return self._described(connection)
        except duckdb.BinderException:
            # A declared column that no CSV file has is the caller's to report, by name.
            return replace(self, declared={}).column_types(connection) if self.is_text and self.declared else {}
        except duckdb.Error as error:
            raise broken(self.name, error) from error

    def ordered(self, connection: duckdb.DuckDBPyConnection, columns: Collection[str]) -> str:
        """Return the relation with one column more, BIGINT ``__order``, by which rows stand in file order.

        That is by file, sorted by path, then as they stand in it; in a table of a database by ``rowid``. Views, and
        files with a column that is called as DuckDB's own ``file_index``, have the order in which DuckDB yields rows.

        Args:
            columns: what the relation has.
        """
        if self.warehouse is not None:
            return f"(SELECT *, {self.position(connection) or _AS_READ} AS {ORDER} FROM {self.relation})"
        reader = self._reader()
        rows = f"SELECT *, {_AS_READ if _FILE_COLUMNS & set(columns) else self._place()} AS {ORDER} FROM {reader}"
        return f"(FROM {reader} WHERE false UNION ALL BY NAME {rows})" if self.columns_of else f"({rows})"

    def _place(self) -> str:
        file = f"[{', '.join(map(str, self.places))}][CAST(file_index AS BIGINT) + 1]" if self.places else "file_index"
        row = _AS_READ if self.is_text else "file_row_number"
        return f"(CAST({file} AS BIGINT) << {_ROW_BITS}) + {row}"

    def count_rows(self, connection: duckdb.DuckDBPyConnection) -> int | None:
        """Return how many rows there are, without reading them; None: of text only reading would tell.

        Raises:
            SourceError: a file is broken.
        """
        if self.is_text:
            return None
        try:
            with self.opened(connection):
                found = connection.execute(f"SELECT count(*) FROM {self.relation}", self.parameters).fetchall()
        except duckdb.Error as error:
            raise broken(self.name, error) from error
        return int(found[0][0])

    def position(self, connection: duckdb.DuckDBPyConnection) -> str | None:
        """Return SQL that tells the relation's rows apart by a BIGINT, or None where rows have no position."""
        if self.warehouse is not None:
            return "rowid" if self._answers(connection, "rowid") else None
        if self.is_text or _FILE_COLUMNS & set(self.column_types(connection)):
            return None
        return self._place()

    def _part(self, places: Sequence[int]) -> Self:
        files = tuple(self.files[place] for place in places)
        return replace(self, files=files, columns_of=self.files, places=tuple(places))

    def _reader(self) -> str:
        if self.is_text:
            return f"read_csv(?, union_by_name = true, header = true{_types('types', self.declared, self.declared)})"
        hive = _types("hive_types", self.declared, self.partitions)
        return f"read_parquet(?, union_by_name = true, hive_partitioning = {str(bool(self.partitions)).lower()}{hive})"

    def _described(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        rows = connection.execute(f"DESCRIBE SELECT * FROM {self.relation}", self.parameters).fetchall()
        return {row[0]: row[1] for row in rows}

    def _answers(self, connection: duckdb.DuckDBPyConnection, column: str) -> bool:
        try:
            with self.opened(connection):
                connection.execute(f"SELECT {column} FROM {self.relation} LIMIT 0", self.parameters)
        except duckdb.BinderException:
            return False
        return True


def find_table(repo: Path, path: str, name: str, declared: Mapping[str, DType] | None = None) -> Table:
    """Return the table behind a path, folder, glob or database address, relative to the repo.

    Args:
        declared: types of the columns that are wanted, for sources that carry none.

    Raises:
        SourceError: there is no such file, or it lies in an object store.
    """
    if is_remote(path):
        raise SourceError(name, NO_STORES, value=path, fix=USE_FILES)
    warehouse, full = find_warehouse(path), _place(repo, path)
    files = tuple(sorted(str(file) for file in _files(full)))
    if not files:
        raise SourceError(
            name, "has no file", value=path, fix="put the file there, or correct the path in the definition"
        )
    if warehouse is not None:
        return Table(name=name, files=files, warehouse=replace(warehouse, path=files[0]))
    return Table(name=name, files=files, partitions=_partitions(_root(full), files), declared=dict(declared or {}))


def is_there(repo: Path, path: str) -> bool:
    """Say whether there is a file behind a path, folder, glob or database address, relative to the repo."""
    return not is_remote(path) and any(True for _ in _files(_place(repo, path)))


def is_remote(path: str) -> bool:
    """Say whether a path is the address of an object store.

    >>> is_remote("s3://bucket/users.parquet"), is_remote("data/*.parquet"), is_remote("duckdb:w.db#t")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def _place(repo: Path, path: str) -> Path:
    warehouse = find_warehouse(path)
    return repo / (warehouse.path if warehouse else path)


def view_table(repo: Path, view: View) -> Table:
    """Return the table behind a view's source, its untyped columns read as the view declares them.

    Raises:
        SourceError: there is no such file.
    """
    return find_table(repo, view.source.path, f"source of view {view.name!r}", view_columns(view))


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        found = list(path.rglob("*.parquet"))
        return found or [file for file in path.rglob("*.csv*") if file.name.endswith(_TEXT_FILES)]
    if path.exists():
        return [path, *Path(f"{path}{PARTS}").glob("*.parquet")]
    return Path(path.anchor).glob(str(path.relative_to(path.anchor)))


def _root(path: Path) -> Path:
    """Return the folder below which files are looked for."""
    if path.is_dir():
        return path
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return Path(*parts[:first])


def _partitions(root: Path, files: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of ``key=value`` folders below a root, if every file lies under the same."""
    keys = {
        tuple(part.partition("=")[0] for part in Path(file).relative_to(root).parent.parts if "=" in part)
        for file in files
    }
    return keys.pop() if len(keys) == 1 else ()


def _types(option: str, declared: Mapping[str, DType], columns: Iterable[str]) -> str:
    """Return DuckDB's option for column types; times are left out: only sniffing tells whether they have a zone."""
    known = [name for name in columns if declared.get(name, DType.TIMESTAMP) is not DType.TIMESTAMP]
    pairs = ", ".join(f"{text(name)}: '{declared[name].sql}'" for name in known)
    return f", {option} = {{{pairs}}}" if known else ""


def broken(name: str, error: Exception) -> SourceError:
    """Return the error for a table that DuckDB could not read; it names line, column and value where DuckDB does."""
    found = _MISFIT.search(str(error))
    if found is not None:
        return SourceError(
            f"{name} column {found['column']!r}",
            f"cannot be read as {found['type']} on line {found['line']}",
            value=found["value"],
            fix="correct the file, or declare the column with the type that it has",
        )
    reason = str(error).splitlines()[0]
    if isinstance(error, duckdb.CatalogException):
        return SourceError(name, f"cannot be read: {reason}", fix="create the table, or correct its name")
    return SourceError(name, f"cannot be read: {reason}", fix="write the file again, or remove it")
