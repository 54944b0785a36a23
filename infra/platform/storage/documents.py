"""Documents and records in the database: the current value of a thing, and values that are never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.storage.database import Database

Json = Any


class _Table:
    """The rows of one kind in a table, by name.

    Args:
        database: of the project.
        kind: of the rows, in the words of the glossary.
    """

    _table: ClassVar[str]

    def __init__(self, database: Database, kind: str) -> None:
        self._database = database
        self._kind = kind

    def names(self) -> list[str]:
        """Return the names that have rows, sorted."""
        sql = f"SELECT DISTINCT name FROM {self._table} WHERE kind = ? ORDER BY name"
        return [name for (name,) in self._database.query(sql, self._kind)]


class Documents(_Table):
    """The documents of one kind, by name: each is a JSON value that is replaced as a whole."""

    _table = "documents"

    def get(self, name: str) -> Json | None:
        """Return a document, None if there is none.

        Raises:
            StoreError: it is corrupt, or the database is unavailable.
        """
        rows = self._database.query("SELECT body FROM documents WHERE kind = ? AND name = ?", self._kind, name)
        return self._decode(name, rows[0][0]) if rows else None

    def revision(self, name: str) -> int:
        """Return a number that increases with each change of a document; 0: there is none."""
        rows = self._database.query("SELECT revision FROM documents WHERE kind = ? AND name = ?", self._kind, name)
        return int(rows[0][0]) if rows else 0

    def list_all(self) -> dict[str, Json]:
        """Return all documents of the kind, sorted by name."""
        rows = self._database.query("SELECT name, body FROM documents WHERE kind = ? ORDER BY name", self._kind)
        return {name: self._decode(name, body) for name, body in rows}

    def put(self, name: str, body: Json) -> None:
        """Create or replace a document.

        Raises:
            StoreError: the database is unavailable; the old value is unchanged.
        """
        self._database.execute(
            "INSERT INTO documents (kind, name, revision, body) VALUES (?, ?, 1, ?) "
            "ON CONFLICT (kind, name) DO UPDATE SET revision = documents.revision + 1, body = excluded.body",
            self._kind,
            name,
            _encode(body),
        )

    def create(self, name: str, body: Json) -> bool:
        """Create a document; return False, and change nothing, if it exists."""
        rows = self._database.execute(
            "INSERT INTO documents (kind, name, revision, body) VALUES (?, ?, 1, ?) "
            "ON CONFLICT (kind, name) DO NOTHING RETURNING name",
            self._kind,
            name,
            _encode(body),
        )
        return bool(rows)

    def delete(self, name: str) -> bool:
        """Delete a document; return whether it existed."""
        sql = "DELETE FROM documents WHERE kind = ? AND name = ? RETURNING name"
        return bool(self._database.execute(sql, self._kind, name))

    @contextmanager
    def edit(self, name: str, default: Json) -> Iterator[Json]:
        """Yield a mutable document to change; it is stored at the end, and no other writer can come between.

        Args:
            default: value if there is no document yet.
        """
        with self._database.transaction():
            body = self.get(name)
            body = default if body is None else body
            yield body
            self.put(name, body)

    def _decode(self, name: str, body: str) -> Json:
        return _decode(f"{self._kind} {name!r}", body)


class Records(_Table):
    """Numbered records of one kind, by name: each is written once; the latest is the value, and all are its history.

    Only an erasure replaces records.
    """

    _table = "records"

    def latest_number(self, name: str) -> int:
        """Return the number of the latest record, 0 if there is none."""
        sql = "SELECT max(number) FROM records WHERE kind = ? AND name = ?"
        rows = self._database.query(sql, self._kind, name)
        return int(rows[0][0] or 0) if rows else 0

    def latest(self, name: str) -> tuple[int, Json] | None:
        """Return number and value of the latest record, None if there is none."""
        return next(self.read_latest_first(name, most=1), None)

    def read(self, name: str, number: int) -> Json | None:
        """Return a record, None if there is none with this number."""
        sql = "SELECT body FROM records WHERE kind = ? AND name = ? AND number = ?"
        rows = self._database.query(sql, self._kind, name, number)
        return self._decode(name, number, rows[0][0]) if rows else None

    def read_latest_first(
        self, name: str, most: int | None = None, before: int | None = None
    ) -> Iterator[tuple[int, Json]]:
        """Yield number and value of each record, latest first.

        Args:
            most: number of records; None: all.
            before: only records with smaller numbers; None: all.
        """
        sql = "SELECT number, body FROM records WHERE kind = ? AND name = ? AND number < ? ORDER BY number DESC LIMIT ?"
        end, limit = 2**62 if before is None else before, 2**31 if most is None else most
        for number, body in self._database.query(sql, self._kind, name, end, limit):
            yield number, self._decode(name, number, body)

    def append(self, name: str, number: int, body: Json) -> None:
        """Add a record with the next number.

        Raises:
            ConflictError: another writer has used the number; nothing was added.
            StoreError: the database is unavailable.
        """
        rows = self._database.execute(
            "INSERT INTO records (kind, name, number, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING RETURNING number",
            self._kind,
            name,
            number,
            _encode(body),
        )
        if not rows:
            thing = f"{self._kind} {name!r}"
            problem = f"was changed by another process: record {number} exists"
            raise ConflictError(thing, problem, fix="read it again and decide again")

    def add(self, name: str, body: Json) -> int:
        """Add a record after the latest one; return its number."""
        with self._database.transaction():
            number = self.latest_number(name) + 1
            self.append(name, number, body)
        return number

    def replace(self, name: str, number: int, body: Json) -> None:
        """Replace a record whose value must not be kept."""
        sql = "UPDATE records SET body = ? WHERE kind = ? AND name = ? AND number = ?"
        self._database.execute(sql, _encode(body), self._kind, name, number)

    def count(self, name: str) -> int:
        """Return the number of records."""
        rows = self._database.query("SELECT count(*) FROM records WHERE kind = ? AND name = ?", self._kind, name)
        return int(rows[0][0])

    def delete(self, name: str, number: int) -> None:
        """Delete a record."""
        sql = "DELETE FROM records WHERE kind = ? AND name = ? AND number = ?"
        self._database.execute(sql, self._kind, name, number)

    def delete_before(self, name: str, number: int) -> None:
        """Delete all records with smaller numbers."""
        sql = "DELETE FROM records WHERE kind = ? AND name = ? AND number < ?"
        self._database.execute(sql, self._kind, name, number)

    def _decode(self, name: str, number: int, body: str) -> Json:
        return _decode(f"{self._kind} {name!r}, record {number},", body)


def _encode(body: Json) -> str:
    # PostgreSQL cannot store a zero character in a text; JSON escapes it.
    return json.dumps(body, sort_keys=True, allow_nan=False)


def _decode(thing: str, body: str) -> Json:
    try:
        return json.loads(body)
    except ValueError as error:
        raise StoreError(thing, "is corrupt in the database", fix="restore the database from a backup") from error
