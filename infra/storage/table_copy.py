"""Copies all tables of one database into another, which may be of the other kind."""

from __future__ import annotations

from collections.abc import Iterator

from skewless.infra.storage.database import Database, Row
from skewless.infra.storage.schema import KEYS

_PAGE_ROWS = 5_000


def copy_tables(source: Database, target: Database) -> dict[str, int]:
    """Copy all rows of one state of a database into an empty one, in one transaction; return the rows per table.

    Writers of the source do not wait. Memory is bounded by a page of rows.

    Raises:
        StoreError: a database is unavailable; the target is unchanged.
    """
    counts = dict.fromkeys(KEYS, 0)
    with source.snapshot(), target.transaction():
        for table in KEYS:
            for row in _read_rows(source, table):
                target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
                counts[table] += 1
    return counts


def count_rows(database: Database) -> dict[str, int]:
    """Return the number of rows per table."""
    return {table: sum(count for (count,) in database.query(f"SELECT count(*) FROM {table}")) for table in KEYS}


def _read_rows(source: Database, table: str) -> Iterator[Row]:
    columns, width = ", ".join(KEYS[table]), len(KEYS[table])
    page = source.query(f"SELECT * FROM {table} ORDER BY {columns} LIMIT {_PAGE_ROWS}")
    after = f"SELECT * FROM {table} WHERE ({columns}) > ({', '.join('?' * width)}) ORDER BY {columns}"
    while page:
        yield from page
        page = source.query(f"{after} LIMIT {_PAGE_ROWS}", *page[-1][:width])
