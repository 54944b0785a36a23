"""Tables and views of a DuckDB database file: how they are addressed, and attached only while they are read."""

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
from skewless.infra.offline.sql import quote

_SCHEME = "duckdb:"
# How DuckDB says it: another process, or another connection of this one.
_OPEN_ELSEWHERE = ("lock", "different configuration", "file handle conflict")
_PART = r'(?:"(?:[^"]|"")+"|[^".]+)'
_NAME = re.compile(rf"(?:({_PART})\.)?({_PART})")


@dataclass(frozen=True, kw_only=True)
class DatabaseTable:
    """A table or view inside a database file.

    Args:
        path: the file; relative to the repo in an address, absolute once found.
        table: ``table`` or ``schema.table``, each part quoted where SQL would ask for it.
    """

    path: str
    table: str

    def __post_init__(self) -> None:
        """Refuse a name that is not one.

        Raises:
            DefinitionError: it has more parts than a schema and a table.
        """
        if _NAME.fullmatch(self.table) is None:
            raise DefinitionError(
                f"database {self.path!r}",
                "is asked for a table whose name cannot be read",
                value=self.table,
                fix='write table, schema.table or "odd.schema"."odd table"',
            )

    @property
    def address(self) -> str:
        """Return the one text that stands for it where other sources have a path.

        >>> DatabaseTable(path="wh.duckdb", table="main.trips").address
        'duckdb:wh.duckdb#main.trips'
        """
        return f"{_SCHEME}{percent(self.path)}#{percent(self.table)}"

    @property
    def alias(self) -> str:
        """Return the name under which the database is attached; one for each file."""
        return f"warehouse_{digest(self.path)}"

    @property
    def relation(self) -> str:
        """Return the table's SQL name; it is known while the database is attached."""
        return ".".join([self.alias, *(quote(part) for part in self.parts)])

    @property
    def parts(self) -> tuple[str, str]:
        """Return schema and table, unquoted.

        >>> DatabaseTable(path="w", table='"a.b"').parts
        ('main', 'a.b')
        """
        found = _NAME.fullmatch(self.table)
        schema, table = (found[1], found[2]) if found else (None, self.table)
        return _bare(schema or "main"), _bare(table)

    @contextmanager
    def attached(self, connection: duckdb.DuckDBPyConnection, name: str) -> Iterator[None]:
        """Attach the database read-only for a while; a database that is attached already stays so.

        While it is attached nobody else can write it, so the time is kept short.

        Args:
            name: how errors call the source.

        Raises:
            SourceError: it is open for writing elsewhere, or cannot be read.
        """
        known = connection.execute("SELECT 1 FROM duckdb_databases() WHERE database_name = ?", [self.alias]).fetchall()
        if known:
            yield
            return
        try:
            connection.execute(f"ATTACH ? AS {self.alias} (READ_ONLY)", [self.path])
        except duckdb.Error as error:
            raise self._refused(name, error) from error
        try:
            yield
        finally:
            connection.execute(f"DETACH {self.alias}")

    def _refused(self, name: str, error: duckdb.Error) -> SourceError:
        reason = str(error).splitlines()[0]
        if any(sign in reason.lower() for sign in _OPEN_ELSEWHERE):
            return SourceError(
                name,
                "is a database that is open for writing elsewhere",
                value=self.path,
                fix="close it there while this reads, or let the writer export a copy",
            )
        return SourceError(name, f"cannot be read: {reason}", fix="write the database again with this DuckDB's version")


def find_warehouse(address: str) -> DatabaseTable | None:
    """Return the table that an address stands for; None for the path of ordinary files.

    >>> find_warehouse("duckdb:wh.duckdb#trips")
    DatabaseTable(path='wh.duckdb', table='trips')
    """
    if not address.startswith(_SCHEME):
        return None
    path, _, table = address.removeprefix(_SCHEME).partition("#")
    return DatabaseTable(path=unquote(path), table=unquote(table))


def _bare(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
