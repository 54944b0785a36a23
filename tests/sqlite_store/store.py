"""The writing side of an online store in a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.rows import RANK_BYTES
from skewless.contract.status import BoolArray
from skewless.infra.reads.online.port import LOST, Binaries, Letters, Marker
from skewless_dynamodb.state_update import append_update
from tests.sqlite_store.database import Database, read_marks, read_values

_WRITE_S = 30.0
_CHUNK = 1_000
_PUT = f"""
INSERT INTO entries (key, value) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, until_us = NULL
WHERE length(value) < {RANK_BYTES} OR substr(excluded.value, 1, {RANK_BYTES}) > substr(value, 1, {RANK_BYTES})
"""
_SET = "INSERT OR REPLACE INTO entries (key, value) VALUES (?, ?)"
_MARK = "INSERT OR REPLACE INTO markers VALUES (?, ?, ?)"


class SqliteStore:
    """See ``OnlineStore``."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, _WRITE_S)
        self._database.open()
        self._began: dict[str, bytes] = {}  # the life of the file in which a marker was read

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank."""
        with self._database.transaction() as connection:
            return connection.executemany(_PUT, zip(_each(keys), _each(rows), strict=True)).rowcount if len(keys) else 0

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the value of each key, in order; None: there is none."""
        return self._database.read(_each(keys), [])[0]

    def replace(
        self,
        keys: Binaries,
        old: Sequence[bytes | None],
        new: Binaries,
        heads: Sequence[bytes] | None = None,
    ) -> BoolArray:
        """Put values in the place of what is still as it was read; return which."""
        done = np.zeros(len(keys), dtype=np.bool_)
        before = [value or b"" for value in old]
        with self._database.transaction() as connection:
            items = zip(_each(keys), before, before if heads is None else heads, _each(new), strict=True)
            for place, (key, value, head, after) in enumerate(items):
                stands = read_values(connection, [key])[0] or b""
                if len(stands) == len(value) and stands.startswith(head):
                    if after:
                        connection.execute(_SET, (key, after))
                    else:
                        connection.execute("DELETE FROM entries WHERE key = ?", (key,))
                    done[place] = True
        return done

    def append(self, keys: Binaries, updates: Binaries, marker: tuple[str, int | None]) -> Letters:
        """Append records to states; return a letter for each."""
        letters = np.zeros(len(keys), dtype=np.uint8)
        with self._database.transaction() as connection:
            self._refuse_loss(connection, dict([marker]))
            for place, (key, update) in enumerate(zip(_each(keys), _each(updates), strict=True)):
                letters[place], state = append_update(read_values(connection, [key])[0], update)
                if state is not None:
                    connection.execute(_SET, (key, state))
        return letters

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has surely been applied, or None."""
        with self._database.transaction("DEFERRED") as connection:
            self._began[name] = _life(connection)
            (mark,) = read_marks(connection, [name])
        return None if mark is None or mark.position <= LOST else mark.position

    def read_markers(self, names: Sequence[str]) -> list[Marker | None]:
        """Return how far partitions were surely applied, as of one moment."""
        return self._database.read([], names)[1]

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record how far partitions were applied; refused by a file that is another than ``marker`` read."""
        with self._database.transaction() as connection:
            if {self._began[name] for name in marks if name in self._began} - {_life(connection)}:
                raise self._lost()
            self._refuse_loss(connection, expected or {})
            for name, mark in marks.items():
                old = read_marks(connection, [name])[0] or Marker(mark.position)
                position = max(old.position, mark.position)
                kept = 0 if position <= LOST else old.watermark_us
                connection.execute(_MARK, (name.encode(), position, mark.watermark_us or kept))

    def refresh_markers(self, marks: Mapping[str, Marker]) -> None:
        """Record new watermarks of markers that stand where they should."""
        with self._database.transaction() as connection:
            self._refuse_loss(connection, {name: mark.position for name, mark in marks.items()})
            for name, mark in marks.items():
                if mark.watermark_us:
                    query = "UPDATE markers SET watermark_us = ? WHERE name = ?"
                    connection.execute(query, (mark.watermark_us, name.encode()))

    def publish(self, key: bytes, text: bytes) -> None:
        """Put a note where servers look."""
        with self._database.transaction() as connection:
            connection.execute(_SET, (key, text))

    def remove(self, keys: Sequence[bytes]) -> int:
        """Delete the values of keys; return how many there were."""
        with self._database.transaction() as connection:
            return sum(connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount for key in keys)

    def delete(self, prefix: str) -> int:
        """Delete all keys and markers that begin with a prefix, some at a time; return how many there were."""
        return sum(self._deleted(table, name, prefix) for table, name in (("markers", "name"), ("entries", "key")))

    def clock_offset_us(self) -> int:
        """Return 0: the clock of a file is this machine's."""
        return 0

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _deleted(self, table: str, name: str, prefix: str) -> int:
        some = f"SELECT {name} FROM {table} WHERE substr({name}, 1, ?) = ? LIMIT {_CHUNK}"
        start = prefix.encode()
        total = 0
        while True:
            with self._database.transaction() as connection:
                written = "SELECT name FROM markers WHERE substr(name, 1, ?) = ? AND name LIKE '%:applied'"
                if table == "entries" and connection.execute(written, (len(start), start)).fetchone():
                    return total
                query = f"DELETE FROM {table} WHERE {name} IN ({some})"
                deleted = connection.execute(query, (len(start), start)).rowcount
            if not deleted:
                return total
            total += deleted

    def _refuse_loss(self, connection: sqlite3.Connection, expected: Mapping[str, int | None]) -> None:
        for reached, mark in zip(expected.values(), read_marks(connection, list(expected)), strict=True):
            if reached is not None and (mark is None or mark.position < reached):
                raise self._lost()

    def _lost(self) -> StoreError:
        return self._database.failure(
            "was emptied or replaced while rows were written and may have lost rows",
            "run it again: what may be lost is put again",
        )


def _life(connection: sqlite3.Connection) -> bytes:
    (life,) = connection.execute("SELECT id FROM life").fetchone()
    return bytes(life)


def _each(values: Binaries) -> Sequence[bytes]:
    return cast("Sequence[bytes]", values.to_pylist()) if isinstance(values, pa.Array) else values
