"""Tables and views of a DuckDB database file, which is attached only during reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote as percent
from urllib.parse import unquote

import duckdb

from skewless.contract.columns import digest
from skewless.contract.errors import DefinitionError, SourceError
from skewless.infra.reads.offline.sql import quote

_SCHEME = "duckdb:"
# Parts of DuckDB's messages if another process, or another connection of this process, has the file open.
_OPEN_ELSEWHERE = ("lock", "different configuration", "file handle conflict")
_PART = r'(?:"(?:[^"]|"")+"|[^".]+)'
_NAME = re.compile(rf"(?:({_PART})\.)?({_PART})")


@dataclass(frozen=True, kw_only=True)
class DatabaseTable:
    """A table or view inside a database file.

    Args:
        path: the file; relative to the repo in an address, absolute after ``find_table``.
        table: ``table`` or ``schema.table``, each part quoted if SQL requires it.
    """

    path: str
    table: str

    def __post_init__(self) -> None:
        """Check the table's name.

        Raises:
            DefinitionError: it has more parts than a schema and a table.
        """
        if _NAME.fullmatch(self.table) is None:
            raise DefinitionError(
                f"database {self.path!r}",
                "has a table name that cannot be parsed",
                value=self.table,
                fix='write table, schema.table or "odd.schema"."odd table"',
            )

    @property
    def address(self) -> str:
        """Return the address of the table, which is used like the path of a file.

        >>> DatabaseTable(path="wh.duckdb", table="main.trips").address
        'duckdb:wh.duckdb#main.trips'
        """
        return f"{_SCHEME}{percent(self.path)}#{percent(self.table)}"

    @property
    def alias(self) -> str:
        """Return the name under which the database is attached, unique for each file."""
        return f"warehouse_{digest(self.path)}"

    @property
    def relation(self) -> str:
        """Return the table's SQL name, which is valid while the database is attached."""
        return ".".join([self.alias, *(quote(part) for part in self.parts)])

    @property
    def parts(self) -> tuple[str, str]:
        """Return schema and table, unquoted.

        >>> DatabaseTable(path="w", table='"a.b"').parts
        ('main', 'a.b')
        """
        match = _NAME.fullmatch(self.table)
        schema, table = (match[1], match[2]) if match else (None, self.table)
        return _unquote(schema or "main"), _unquote(table)

    @contextmanager
    def attach(self, connection: duckdb.DuckDBPyConnection, name: str) -> Iterator[None]:
        """Attach the database read-only within the block; an attached database stays attached.

        No other process can write to the database while it is attached, so the time is kept short.

        Args:
            name: name of the source in errors.

        Raises:
            SourceError: it is open for writing elsewhere, or cannot be read.
        """
        attached = connection.execute(
            "SELECT 1 FROM duckdb_databases() WHERE database_name = ?", [self.alias]
        ).fetchall()
        # A caller further out has attached it, and detaches it.
        if attached:
            yield
            return
        try:
            connection.execute(f"ATTACH ? AS {self.alias} (READ_ONLY)", [self.path])
        except duckdb.Error as error:
            raise self._attach_error(name, error) from error
        try:
            yield
        finally:
            connection.execute(f"DETACH {self.alias}")

    def _attach_error(self, name: str, error: duckdb.Error) -> SourceError:
        reason = str(error).splitlines()[0]
        if any(sign in reason.lower() for sign in _OPEN_ELSEWHERE):
            return SourceError(
                name,
                "is open for writing in another process",
                value=self.path,
                fix="close it there during the read, or let the writer export a copy",
            )
        return SourceError(name, f"cannot be read: {reason}", fix="write the database again with this DuckDB's version")


def parse_database_address(address: str) -> DatabaseTable | None:
    """Return the table of an address; None for the path of files.

    >>> parse_database_address("duckdb:wh.duckdb#trips")
    DatabaseTable(path='wh.duckdb', table='trips')
    """
    if not address.startswith(_SCHEME):
        return None
    path, _, table = address.removeprefix(_SCHEME).partition("#")
    return DatabaseTable(path=unquote(path), table=unquote(table))


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
