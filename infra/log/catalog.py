"""The catalog of the logs: which segments each partition has (SEMANTICS 1.4, 4.2). It is in the database.

A segment is an immutable Parquet object with the rows of a range of positions. Appending stores the object first, and
then adds its row in one transaction, which moves the partition's next position: this is the fence, so of two writers
one fails. An object without a row is not part of the log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.readers import list_readers
from skewless.infra.platform.storage.database import Database, Row
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import SEGMENT_SUM

_FIELDS = "first_seq, last_seq, object, size, stamp, digest, at_us, known_us, is_merged, is_proven"
_INSERT = f"INSERT INTO segments (partition, {_FIELDS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SEGMENT_FIELDS = f"{_FIELDS}, {SEGMENT_SUM.is_intact}"  # to select, for ``decode_segment``
_COLUMNS_UNCHANGED = ""
IMPORTED = "/import/"  # part of the names of partitions with imported events
End = tuple[int, int, int]  # of an application: the first and the last position, and the time in microseconds
# An object that no log has and that is older belongs to no running append, because those are refused much earlier.
ORPHAN_AGE_US = 86_400_000_000
_LONGEST_APPEND_S = 3_600.0
ORPHAN_LOCK = "objects of no log"  # held by a process that deletes them, or adds them to a log
LOG_FOLDERS = ("log", "predictions", "outcomes")  # of the objects


class Segment(NamedTuple):
    """A segment: rows at positions ``first`` to ``last``, both included.

    Args:
        at_us: time of its last row by the log's own order, for example when it was accepted; microseconds.
        known_us: when all its rows had been applied; None: not yet, or unknown.
        is_merged: compaction has written it. Then its file has the times at which its rows were applied.
        is_proven: replay has proven its rows.
    """

    first: int
    last: int
    stored: StoredObject
    at_us: int = 0
    known_us: int | None = None
    is_merged: bool = False
    is_proven: bool = False

    @property
    def rows(self) -> int:
        """Number of positions."""
        return self.last - self.first + 1


class Catalog:
    """The catalog of all logs of a project; any thread and any process may use it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ends(self, folder: str) -> dict[str, int]:
        """Return the last position of each partition below a folder, by name; -1: it is empty."""
        rows = self._database.query(
            "SELECT partition, next_seq FROM log_partitions WHERE substr(partition, 1, ?) = ?",
            len(folder) + 1,
            f"{folder}/",
        )
        return {name: int(next_seq) - 1 for name, next_seq in sorted(rows)}

    def partitions(self) -> list[str]:
        """Return the names of all partitions, sorted."""
        return sorted(name for (name,) in self._database.query("SELECT partition FROM log_partitions"))

    def next_seq(self, partition: str) -> int:
        """Return the position after the last row of any writer; 0: the partition is empty."""
        rows = self._database.query("SELECT next_seq FROM log_partitions WHERE partition = ?", partition)
        return int(rows[0][0]) if rows else 0

    def columns(self, partition: str) -> str:
        """Return the encoded columns of a partition; empty: it has none."""
        rows = self._database.query("SELECT columns FROM log_partitions WHERE partition = ?", partition)
        return str(rows[0][0]) if rows else ""

    def segments(self, partition: str, first: int = 0, last: int | None = None) -> list[Segment]:
        """Return the segments with positions ``first`` to ``last``, both included, in order; None: to the end."""
        rows = self._database.query(
            f"SELECT {SEGMENT_FIELDS} FROM segments WHERE partition = ? AND last_seq >= ? AND first_seq <= ?"
            " AND first_seq >="
            " (SELECT coalesce(max(first_seq), 0) FROM segments WHERE partition = ? AND first_seq <= ?)"
            " ORDER BY first_seq",
            partition,
            first,
            2**62 if last is None else last,
            partition,
            first,
        )
        return [decode_segment(row) for row in rows]

    def last_applied(self, partitions: Collection[str]) -> dict[str, int]:
        """Return for each partition the last position of which an end of its application is recorded; -1: none."""
        places = ", ".join("?" * len(partitions))
        # A step in an index for each partition, however many segments it has.
        rows = self._database.query(
            "SELECT partition, (SELECT last_seq FROM segments WHERE segments.partition = log_partitions.partition"
            " AND known_us IS NOT NULL ORDER BY first_seq DESC LIMIT 1) FROM log_partitions"
            f" WHERE partition IN ({places})",
            *partitions,
        )
        return dict.fromkeys(partitions, -1) | {name: last for name, last in rows if last is not None}

    def has_all_ends(self, partition: str) -> bool:
        """Return whether an end of its application is recorded for each position."""
        sql = "SELECT 1 FROM segments WHERE partition = ? AND known_us IS NULL LIMIT 1"
        return not self._database.query(sql, partition)

    def count_rows(self, partition: str, *, unproven_before_us: int | None = None) -> int:
        """Return the number of rows of all segments, or of those before a time that no replay has proven."""
        sql = "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM segments WHERE partition = ?"
        further, values = (" AND is_proven = 0 AND at_us < ?", [unproven_before_us]) if unproven_before_us else ("", [])
        return sum(int(rows) for (rows,) in self._database.query(sql + further, partition, *values))

    def append(
        self,
        partition: str,
        stored: StoredObject,
        rows: int,
        *,
        began_at: float,
        at: int | None = None,
        at_us: int = 0,
        known_us: int | None = None,
        is_merged: bool = False,
        columns: str = _COLUMNS_UNCHANGED,
        check: Callable[[], None] | None = None,
        end: End | None = None,
    ) -> Segment:
        """Add a stored object as the next segment.

        Args:
            partition: of the log.
            stored: the object with the rows.
            rows: number of rows, at least one.
            began_at: when the storing of the object began, by ``time.time``.
            at: position of its first row, which must be the end; None: the end, wherever it is.
            at_us, known_us, is_merged: of the segment.
            columns: of the partition from now on; empty: unchanged.
            check: called in the transaction; an error of it leaves the log unchanged.
            end: recorded in the transaction, for earlier rows; None: none.

        Raises:
            ConflictError: the partition has another end.
            StoreError: the database is unavailable; the segment may have been added, if the reply was lost. Or
                storing took so long that housekeeping may have deleted the object.
        """
        with self._database.transaction(is_alone=at is None or check is not None):
            _check_age(partition, began_at)
            if check is not None:
                check()
            first = self.next_seq(partition) if at is None else at
            if not self._move_end(partition, first, first + rows, columns):
                raise moved_error(partition, first)
            segment = Segment(first, first + rows - 1, stored, at_us, known_us, is_merged)
            self._insert(partition, segment)
            if end is not None:
                self.record_end(partition, *end)
        return segment

    def restamp(self, partition: str, segment: Segment) -> None:
        """Record the stamp of a segment's object, which another storage has now."""
        sql = "UPDATE segments SET stamp = ? WHERE partition = ? AND first_seq = ?"
        self._database.execute(sql, segment.stored.stamp, partition, segment.first)

    def record_end(self, partition: str, first: int, last: int, known_us: int) -> None:
        """Record when all positions up to each of ``first`` to ``last`` had been applied; the first record counts."""
        self._database.execute(
            f"UPDATE segments SET known_us = ?, checksum = {SEGMENT_SUM.changed({'known_us': '?'})}"
            " WHERE partition = ? AND last_seq >= ? AND last_seq <= ? AND known_us IS NULL",
            known_us,
            known_us,
            partition,
            first,
            last,
        )

    def mark_proven(self, partition: str, objects: Iterable[str]) -> None:
        """Record that replay has proven the rows of segments."""
        with self._database.transaction():
            for name in objects:
                checksum = SEGMENT_SUM.changed({"is_proven": "1"})
                sql = f"UPDATE segments SET is_proven = 1, checksum = {checksum} WHERE partition = ? AND object = ?"
                self._database.execute(sql, partition, name)

    def replace(self, partition: str, old: Sequence[Segment], new: Segment | None, *, began_at: float) -> None:
        """Replace adjacent segments by one; a reader sees all of the old ones or the new one.

        Args:
            partition: of the log.
            old: the segments, in order.
            new: at the same first position; it may have fewer rows. None: the segments are removed.
            began_at: when the storing of the new object began, by ``time.time``.

        Raises:
            ConflictError: another process has replaced or removed one of them.
            StoreError: as ``append``; no segment was replaced.
        """
        with self._database.transaction():
            _check_age(partition, began_at)
            sql = "DELETE FROM segments WHERE partition = ? AND first_seq >= ? AND last_seq <= ?"
            returned = "RETURNING object, is_proven, known_us"
            rows = self._database.execute(f"{sql} {returned}", partition, old[0].first, old[-1].last)
            if {name for name, _, _ in rows} != {segment.stored.name for segment in old}:
                raise ConflictError(
                    f"log partition {partition!r}", "was changed by another process", fix="run it again"
                )
            if new is not None:
                # The end of their application may have been recorded meanwhile.
                known = [known_us for _, _, known_us in rows]
                known_us = max(known) if new.known_us is None and None not in known else new.known_us
                is_proven = all(is_proven for _, is_proven, _ in rows)
                self._insert(partition, new._replace(known_us=known_us, is_proven=is_proven))
            self._note_removed((name for name, _, _ in rows), list_readers(self._database))

    def remove_before(self, partition: str, before_us: int, keep_from: int | None, *, dry_run: bool = False) -> int:
        """Remove the segments whose time and all positions are earlier; return how many."""
        where = "FROM segments WHERE partition = ? AND at_us < ? AND last_seq < ?"
        values = partition, before_us, 2**62 if keep_from is None else keep_from
        if dry_run:
            return int(self._database.query(f"SELECT count(*) {where}", *values)[0][0])
        with self._database.transaction():
            rows = self._database.execute(f"DELETE {where} RETURNING object", *values)
            self._note_removed((name for (name,) in rows), list_readers(self._database))
        return len(rows)

    def discard(self, storage: ObjectStorage, partition: str, name: str) -> None:
        """Delete an object that its writer could not add, unless ``skewless recover`` has added it.

        Raises:
            StoreError: the database or the storage refused it; housekeeping deletes the object.
        """
        with self._database.transaction():
            sql = "SELECT 1 FROM segments WHERE partition = ? AND object = ?"
            if self._database.query(sql, partition, name):
                return
            self._note_removed([name], readers=[])
        self._delete(storage, [name])

    def is_discarded(self, name: str) -> bool:
        """Return whether an object is about to be deleted."""
        return bool(self._database.query("SELECT 1 FROM removed_objects WHERE object = ?", name))

    def delete_unread(self, storage: ObjectStorage, *, dry_run: bool = False) -> int:
        """Delete removed objects that no reader can still use; return how many.

        Raises:
            StoreError: the storage refused it; a later call continues.
        """
        rows = self._database.query("SELECT object, readers FROM removed_objects")
        readers = set(list_readers(self._database)) if rows else set()
        names = [name for name, before in rows if readers.isdisjoint(json.loads(before))]
        self._delete(storage, [] if dry_run else names)
        return len(names)

    def list_removed(self) -> set[str]:
        """Return the names of removed objects that wait for readers."""
        return {name for (name,) in self._database.query("SELECT object FROM removed_objects")}

    def list_digests(self) -> set[str]:
        """Return the digests of the objects of all segments."""
        return {digest for (digest,) in self._database.query("SELECT digest FROM segments")}

    def find_orphans(self, storage: ObjectStorage, folder: str, before_us: int) -> list[str]:
        """Return the objects below a folder that belong to no log, stored before a time: an append was interrupted."""
        listed = [item.name for item in storage.list_objects(folder) if item.modified_us < before_us]
        known = {
            name
            for table in ("segments", "removed_objects")
            for (name,) in self._database.query(
                f"SELECT object FROM {table} WHERE substr(object, 1, ?) = ?", len(folder) + 1, f"{folder}/"
            )
        }
        return sorted(set(listed) - known)

    def _move_end(self, partition: str, first: int, next_seq: int, columns: str) -> bool:
        sql = (
            "UPDATE log_partitions SET next_seq = ?, columns = coalesce(nullif(?, ''), columns)"
            " WHERE partition = ? AND next_seq = ? RETURNING partition"
        )
        if self._database.execute(sql, next_seq, columns, partition, first):
            return True
        # A database that lost the partition must not get a log with a hole.
        return not first and bool(
            self._database.execute(
                "INSERT INTO log_partitions (partition, next_seq, columns) VALUES (?, ?, ?)"
                " ON CONFLICT (partition) DO NOTHING RETURNING partition",
                partition,
                next_seq,
                columns,
            )
        )

    def _insert(self, partition: str, segment: Segment) -> None:
        self._database.execute(
            _INSERT,
            partition,
            segment.first,
            segment.last,
            *segment.stored,
            segment.at_us,
            segment.known_us,
            int(segment.is_merged),
            int(segment.is_proven),
            SEGMENT_SUM.compute(
                segment.first, segment.last, segment.at_us, segment.known_us, segment.is_merged, segment.is_proven
            ),
        )

    def _note_removed(self, names: Iterable[str], readers: Sequence[str]) -> None:
        for name in names:
            sql = "INSERT INTO removed_objects (object, readers) VALUES (?, ?) ON CONFLICT (object) DO NOTHING"
            self._database.execute(sql, name, json.dumps(readers))

    def _delete(self, storage: ObjectStorage, names: Sequence[str]) -> None:
        """Delete removed objects."""
        storage.delete(names)
        with self._database.transaction():
            for name in names:
                self._database.execute("DELETE FROM removed_objects WHERE object = ?", name)


def moved_error(partition: str, first: int | None) -> ConflictError:
    """Return the error for a log that does not end where its writer believes."""
    fix = "open it again and continue after its last row"
    return ConflictError(f"log partition {partition!r}", "was written by another process", value=first, fix=fix)


def _check_age(partition: str, began_at: float) -> None:
    age_s = time.time() - began_at
    if age_s > _LONGEST_APPEND_S:
        raise StoreError(
            f"log partition {partition!r}", f"was paused for {age_s:.0f} s in a write", fix="run the command again"
        )


def decode_segment(row: Row) -> Segment:
    """Return a segment from the columns ``SEGMENT_FIELDS``.

    Raises:
        StoreError: a number of the row was altered.
    """
    first, last, *stored, at_us, known_us, is_merged, is_proven, is_intact = row
    if not is_intact:
        fix = "restore the database from a backup that is older than this, then run skewless recover"
        raise StoreError(f"segment {stored[0]!r}", "was altered in the database", value=(first, last), fix=fix)
    return Segment(first, last, StoredObject(*stored), at_us, known_us, bool(is_merged), bool(is_proven))


def source_logs(source: str) -> str:
    """Return the name below which all log partitions of a source are, each below its stream's epoch."""
    return f"events/{source}"


def log_partitions(state: ProjectState, source: str) -> list[str]:
    """Return the names of the log partitions of a source, sorted."""
    return list(log_ends(state, source))


def log_ends(state: ProjectState, source: str) -> Mapping[str, int]:
    """Return the last position of each log partition of a source, by name; -1 if it is empty."""
    return Catalog(state.database).ends(source_logs(source))
