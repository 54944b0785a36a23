"""Takes objects that no log lists back into the logs, after the database was restored to an older state.

A restored database lacks the segments that were added since, and lists segments that were merged and deleted since. An
object of events or accepted rows is taken by the positions in its name and rows: what compaction has written has only
rows that were part of the log, so it comes first; of other objects, one that begins at the end of the log is its next
segment. Rows of predictions and outcomes have no positions: a shipped file is known by its writer and number, a row by
its key columns.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError
from skewless.contract.status import BoolArray
from skewless.infra.log.catalog import Segment
from skewless.infra.log.compaction import write_rows
from skewless.infra.log.log_columns import INGEST, KNOWN_AT, RUN, encode_columns, unify_columns
from skewless.infra.log.orphans import Orphan
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import conform, read_tables
from skewless.infra.log.runs import RunLedger
from skewless.infra.log.spool import ShippedFiles
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState

_OF_ATTEMPT = (INGEST, KNOWN_AT, RUN)  # differ if the same rows are appended again


class Piece(NamedTuple):
    """Rows of an object that become a segment.

    Args:
        orphan: the object.
        first, last: positions of the rows in the object, both included; none: its rows are in another object.
        replaced: the segments without objects that it replaces; none: it is appended.
    """

    orphan: Orphan
    first: int
    last: int
    replaced: tuple[Segment, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.last - self.first + 1


class Conflict(NamedTuple):
    """Objects of which none can be taken back.

    Args:
        position: of the first row that is concerned.
        problem: a main clause without a subject.
        objects: their names.
    """

    partition: str
    position: int
    problem: str
    objects: tuple[str, ...]


def has_same_values(one: pa.Table, other: pa.Table) -> bool:
    """Return whether rows are equal, apart from times and run of their acceptance; a column that one lacks is null.

    >>> has_same_values(pa.table({"a": [1]}), pa.table({"a": [1], "b": pa.nulls(1, pa.int64())}))
    True
    """
    one, other = (
        table.drop_columns([name for name in _OF_ATTEMPT if name in table.column_names]) for table in (one, other)
    )
    try:
        schema = pa.unify_schemas([one.schema.remove_metadata(), other.schema.remove_metadata()])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return bool(conform(one, schema).equals(conform(other, schema)))


class PartitionRecovery:
    """The recovery of one log.

    Args:
        state: of the project.
        partition: name of the log.
        orphans: its objects that no log lists.
        missing: names of listed objects that the storage does not have.
        keys: columns that identify a row of a log of shipped files; none: a position does.
    """

    def __init__(
        self,
        state: ProjectState,
        partition: str,
        orphans: Sequence[Orphan],
        missing: Collection[str],
        keys: Sequence[str] = (),
    ) -> None:
        self._log = PartitionLog(state, partition)
        self._ledger, self._shipped = RunLedger(state.database), ShippedFiles(state.database)
        self._orphans, self._missing, self._keys = orphans, missing, keys
        self._conflicts: list[Conflict] = []

    def plan(self) -> tuple[list[Piece], list[Conflict]]:
        """Return what the log can get back, in order, and why more is not possible; changes nothing.

        Raises:
            StoreError: database or storage failed.
        """
        self._conflicts = []
        pieces = list(self._plan_holes())
        pieces += self._plan_lacking(pieces) if self._keys else self._plan_tail()
        return pieces, self._conflicts

    def apply(self, piece: Piece) -> None:
        """Make rows of an object a part of the log. A kill at any point changes all or nothing.

        Raises:
            ConflictError: another process has written to the log, or is about to delete the object; plan again.
            StoreError: database or storage failed.
        """
        log, orphan, began_at = self._log, piece.orphan, time.time()
        if not piece.rows:
            self._note_applied(piece)
            return
        stored = orphan.stored
        if piece.rows < orphan.rows:
            with write_rows(log.storage, self._read(orphan, piece.first, piece.last), orphan.schema) as (path, _):
                stored = log.storage.put_file(log.object_name(piece.first), path)
        if piece.replaced:
            known = [segment.known_us for segment in piece.replaced if segment.known_us is not None]
            at_us = max(segment.at_us for segment in piece.replaced)
            new = Segment(piece.first, piece.last, stored, at_us, max(known, default=None), orphan.is_merged)
            log.catalog.replace(log.partition, piece.replaced, new, began_at=began_at)
            return
        log.catalog.append(
            log.partition,
            stored,
            piece.rows,
            began_at=began_at,
            at=None if self._keys else piece.first,
            at_us=orphan.at_us,
            known_us=orphan.known_us,
            is_merged=orphan.is_merged,
            columns=encode_columns(unify_columns(log.partition, log.schema(), orphan.schema)),
            check=lambda: self._note_applied(piece),
        )

    def _note_applied(self, piece: Piece) -> None:
        """Record the runs and the shipped file of an object, in the transaction that adds it."""
        orphan = piece.orphan
        if self._log.catalog.is_discarded(orphan.stored.name):
            raise ConflictError(f"object {orphan.stored.name}", "is being deleted by its writer", fix="run it again")
        # Rows name their run: the next run must not get its number.
        for run_id, started_us in orphan.runs.items():
            self._ledger.restore_start(run_id, started_us)
        if orphan.file:
            with self._shipped.claim(orphan.file[0], [orphan.file[1]]) as is_new:
                if not is_new:
                    raise ConflictError(f"object {orphan.stored.name}", "was shipped meanwhile", fix="run it again")

    def _plan_holes(self) -> Iterator[Piece]:
        """Yield pieces for segments without objects: compaction or an erasure has deleted them."""
        segments = [segment for segment in self._log.segments() if segment.stored.name in self._missing]
        while segments:
            first = segments[0]
            claims = [each for each in self._orphans if each.first <= first.first and each.last >= first.last]
            # An erasure has rewritten the segment, with the same positions.
            same = [each for each in claims if (each.file, each.first, each.last) == (None, first.first, first.last)]
            claims = [each for each in claims if each.is_merged] or same
            covered = 1
            if claims:
                best = max(claims, key=lambda item: item.last)
                while covered < len(segments) and segments[covered - 1].last + 1 == segments[covered].first:
                    if segments[covered].last > best.last:
                        break
                    covered += 1
                piece = Piece(best, first.first, segments[covered - 1].last, tuple(segments[:covered]))
                if not self._has_disagreement(best, claims, piece.first, piece.last):
                    yield piece
            segments = segments[covered:]

    def _plan_tail(self) -> Iterator[Piece]:
        start = end = self._log.next_seq()
        while claims := self._list_claims(end):
            # Of equal rows the later ones: an append that was recorded is not repeated.
            best = max(claims, key=lambda item: (item.last, item.at_us))
            if self._has_disagreement(best, claims, end, best.last) or (end == start and self._has_fork(best, end)):
                return
            yield Piece(best, end, best.last)
            end = best.last + 1
        later = [item for item in self._orphans if item.first > end]
        if later:
            problem = f"lacks the rows {end} to {min(item.first for item in later) - 1} before these objects"
            self._add_conflict(end, problem, later)

    def _plan_lacking(self, restored: Sequence[Piece]) -> Iterator[Piece]:
        """Yield pieces with the rows that a log of shipped files lacks, each once."""
        found = [
            self._read_keys(part.orphan.stored).slice(part.first - part.orphan.first, part.rows) for part in restored
        ]
        merged = (orphan for orphan in self._orphans if orphan.file is None)
        for orphan in sorted(merged, key=lambda item: item.first):
            own = self._read_keys(orphan.stored)
            is_known = _is_in(own, found)
            for segment in self._log.segments():
                if segment.stored.name not in self._missing and not is_known.all():
                    is_known |= _is_in(own, [self._read_keys(segment.stored)])
            edges = np.flatnonzero(np.diff(np.concatenate([[True], is_known, [True]]).astype(np.int8)))
            for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                yield Piece(orphan, orphan.first + begin, orphan.first + end - 1)
            found.append(own)
        # An object has the rows of one file or of several, and the number of the last one. So an object of an
        # interrupted attempt has no other rows than the object that was shipped then, whose number is not lower.
        for orphan in sorted(self._orphans, key=lambda item: item.file or ("", 0), reverse=True):
            if orphan.file and self._shipped.is_new(*orphan.file):
                keys = self._read_keys(orphan.stored)
                # A file is merged as a whole.
                yield Piece(orphan, 0, -1 if _is_in(keys, found).any() else orphan.last)
                found.append(keys)

    def _list_claims(self, position: int) -> list[Orphan]:
        """Return the objects that may have the row at the end of a log."""
        merged = [item for item in self._orphans if item.is_merged and item.first <= position <= item.last]
        return merged or [item for item in self._orphans if not item.is_merged and item.first == position]

    def _has_disagreement(self, best: Orphan, claims: Sequence[Orphan], first: int, last: int) -> bool:
        """Return whether objects have different rows at one of some positions, unlike those of a repeated append."""

        def agrees(other: Orphan) -> bool:
            tables = (pa.concat_tables(self._read(each, first, min(last, other.last))) for each in (best, other))
            return has_same_values(*tables)

        others = [item for item in claims if item is not best and not agrees(item)]
        if others:
            self._add_conflict(first, "has two objects with different rows for one position", [best, *others])
        return bool(others)

    def _has_fork(self, best: Orphan, end: int) -> bool:
        """Return whether the log continued after the restoration: then earlier rows must not follow newer ones.

        Another object for the position before the end may also be of an interrupted append; the times tell them apart.
        A last segment without its object is older than the restoration.
        """
        others = [item for item in self._orphans if item.first < end <= item.last + 1]
        if not others or any(item.stored.name in self._missing for item in self._log.segments(end - 1)):
            return False
        before = pa.concat_tables(self._log.read(end - 1, end - 1))
        rows = [pa.concat_tables(self._read(item, end - 1, end - 1)) for item in others]
        following = pa.concat_tables(self._read(best, end, end))
        if all(has_same_values(before, each) for each in rows) or not _is_not_later(following, before):
            return False
        problem = "has newer rows, added after the database was restored, before the rows of this object"
        self._add_conflict(end, problem, [best])
        return True

    def _add_conflict(self, position: int, problem: str, orphans: Sequence[Orphan]) -> None:
        names = tuple(sorted(item.stored.name for item in orphans))
        self._conflicts.append(Conflict(self._log.partition, position, problem, names))

    def _read(self, orphan: Orphan, first: int, last: int) -> Iterator[pa.Table]:
        """Yield the rows of an object at positions ``first`` to ``last``, both included."""
        return read_tables(self._log.storage.local_path(orphan.stored), orphan.first, first, last, orphan.schema)

    def _read_keys(self, stored: StoredObject) -> pa.Array:
        rows = pq.read_table(self._log.storage.local_path(stored), columns=list(self._keys))
        texts = [rows[name].cast(pa.string()) for name in self._keys]
        return pc.binary_join_element_wise(*texts, "/").combine_chunks()


def _is_not_later(rows: pa.Table, before: pa.Table) -> bool:
    if INGEST not in rows.column_names or INGEST not in before.column_names:
        return True
    at_us, before_us = rows[INGEST][0].as_py(), before[INGEST][0].as_py()
    return at_us is None or before_us is None or at_us <= before_us


def _is_in(keys: pa.Array, others: Sequence[pa.Array]) -> BoolArray:
    known = pa.concat_arrays([keys.slice(0, 0), *others])
    result: BoolArray = pc.is_in(keys, value_set=known).to_numpy(zero_copy_only=False)
    return result
