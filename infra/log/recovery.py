"""Takes objects back into a log whose list is an older state, by the positions in their names and rows.

A restored database lacks the segments that were added since, and lists segments that were merged and deleted since.
Objects that compaction has written have only rows that were part of the log, so they come first. Of other objects, one
that begins at the end of the log is its next segment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import INGEST, encode_columns, merged_options, unify_columns
from skewless.infra.log.orphans import Orphan, has_same_values, have_same_rows, read_rows
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.storage.durable import disk_error
from skewless.infra.storage.objects import StoredObject

OnRuns = Callable[[Orphan], None]


class Piece(NamedTuple):
    """Rows of an object that become a segment.

    Args:
        orphan: the object.
        first, last: positions of the rows, both included.
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


class PartitionPlan(NamedTuple):
    """How a log gets its rows back.

    Args:
        pieces: in order: segments that are replaced, then appended ones.
        conflicts: why more was not possible.
    """

    pieces: tuple[Piece, ...]
    conflicts: tuple[Conflict, ...] = ()


def plan_recovery(
    log: PartitionLog, orphans: Sequence[Orphan], missing: Collection[str], *, is_appended: bool = True
) -> PartitionPlan:
    """Return how a log gets its rows back; changes nothing.

    Args:
        log: of a partition.
        orphans: objects of the partition that no log has.
        missing: names of listed objects that the storage does not have.
        is_appended: False: only replace segments, because positions of later rows are not known.
    """
    conflicts: list[Conflict] = []
    pieces = list(_plan_holes(log, orphans, missing, conflicts))
    if is_appended:
        pieces += _plan_tail(log, orphans, missing, conflicts)
    return PartitionPlan(tuple(pieces), tuple(conflicts))


def apply_piece(log: PartitionLog, piece: Piece, on_append: OnRuns = lambda _: None) -> Segment:
    """Make rows of an object a part of the log; return their segment. A kill at any point changes all or nothing.

    Args:
        log: of the partition.
        piece: of ``plan_recovery``.
        on_append: called in the transaction of an append.

    Raises:
        ConflictError: another process has written to the log, or is about to delete the object; plan again.
        StoreError: database or storage failed.
    """
    orphan, began_at = piece.orphan, time.time()
    stored = orphan.stored if piece.rows == orphan.rows else copy_rows(log, orphan, piece.first, piece.last)
    if piece.replaced:
        known = [segment.known_us for segment in piece.replaced if segment.known_us is not None]
        at_us = max(segment.at_us for segment in piece.replaced)
        new = Segment(piece.first, piece.last, stored, at_us, max(known, default=None), orphan.is_merged)
        log.catalog.replace(log.partition, piece.replaced, new, began_at=began_at)
        return new

    def check() -> None:
        if log.catalog.is_discarded(stored.name):
            raise ConflictError(f"object {stored.name}", "is being deleted by its writer", fix="run it again")
        on_append(orphan)

    return log.catalog.append(
        log.partition,
        stored,
        piece.rows,
        began_at=began_at,
        at=piece.first,
        at_us=orphan.at_us,
        known_us=orphan.known_us,
        is_merged=orphan.is_merged,
        columns=encode_columns(unify_columns(log.partition, log.schema(), orphan.schema)),
        check=check,
    )


def copy_rows(log: PartitionLog, orphan: Orphan, first: int, last: int) -> StoredObject:
    """Store a part of an object as an object of its own.

    Raises:
        StoreError: the storage failed, or the object cannot be read.
    """
    path = log.storage.staging_path()
    try:
        with pq.ParquetWriter(path, orphan.schema, **merged_options(orphan.schema)) as writer:
            for rows in read_rows(log.storage, orphan, first, last):
                writer.write_table(rows)
        return log.storage.put_file(log.object_name(first), path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        path.unlink(missing_ok=True)


def _plan_holes(
    log: PartitionLog, orphans: Sequence[Orphan], missing: Collection[str], conflicts: list[Conflict]
) -> Iterable[Piece]:
    """Yield pieces for segments without objects: compaction or an erasure has deleted them."""
    segments = [segment for segment in log.segments() if segment.stored.name in missing]
    while segments:
        first = segments[0]
        claims = [item for item in orphans if item.is_merged and item.first <= first.first and item.last >= first.last]
        # An erasure has rewritten the segment, with the same positions.
        claims = claims or [item for item in orphans if (item.first, item.last) == (first.first, first.last)]
        covered = 1
        if claims:
            best = max(claims, key=lambda item: item.last)
            while covered < len(segments) and segments[covered - 1].last + 1 == segments[covered].first:
                if segments[covered].last > best.last:
                    break
                covered += 1
            piece = Piece(best, first.first, segments[covered - 1].last, tuple(segments[:covered]))
            conflict = _find_disagreement(log, best, claims, piece.first, piece.last)
            if conflict is None:
                yield piece
            else:
                conflicts.append(conflict)
        segments = segments[covered:]


def _plan_tail(
    log: PartitionLog, orphans: Sequence[Orphan], missing: Collection[str], conflicts: list[Conflict]
) -> Iterable[Piece]:
    start = end = log.next_seq()
    while claims := _list_claims(orphans, end):
        # Of equal rows the later ones: an append that was recorded is not repeated.
        best = max(claims, key=lambda item: (item.last, item.at_us))
        conflict = _find_disagreement(log, best, claims, end, best.last)
        # A last segment without its object is older than the restoration.
        if conflict is None and end == start and not any(item.stored.name in missing for item in log.segments(end - 1)):
            conflict = _find_fork(log, best, orphans, end)
        if conflict is not None:
            conflicts.append(conflict)
            return
        yield Piece(best, end, best.last)
        end = best.last + 1
    later = sorted(item.stored.name for item in orphans if item.first > end)
    if later:
        first = min(item.first for item in orphans if item.first > end)
        problem = f"lacks the rows {end} to {first - 1} before these objects"
        conflicts.append(Conflict(log.partition, end, problem, tuple(later)))


def _list_claims(orphans: Sequence[Orphan], position: int) -> list[Orphan]:
    """Return the objects that may have the row at the end of a log."""
    merged = [item for item in orphans if item.is_merged and item.first <= position <= item.last]
    return merged or [item for item in orphans if not item.is_merged and item.first == position]


def _find_disagreement(
    log: PartitionLog, best: Orphan, claims: Sequence[Orphan], first: int, last: int
) -> Conflict | None:
    """Return a conflict if objects have different rows at one of some positions."""
    others = [
        item
        for item in claims
        if item is not best and not have_same_rows(log.storage, best, item, first, min(last, item.last))
    ]
    if not others:
        return None
    names = sorted(item.stored.name for item in (best, *others))
    return Conflict(log.partition, first, "has two objects with different rows for one position", tuple(names))


def _find_fork(log: PartitionLog, best: Orphan, orphans: Sequence[Orphan], end: int) -> Conflict | None:
    """Return a conflict if the log continued after the restoration: then earlier rows must not follow newer ones.

    Another object for the position before the end may also be of an interrupted append; the times tell them apart.
    """
    others = [item for item in orphans if item.first < end <= item.last + 1]
    if not others:
        return None
    before = pa.concat_tables(log.read(end - 1, end - 1))
    is_other = any(
        not has_same_values(before, pa.concat_tables(read_rows(log.storage, item, end - 1, end - 1))) for item in others
    )
    following = pa.concat_tables(read_rows(log.storage, best, end, end))
    if is_other and _is_not_later(following, before):
        problem = "has newer rows, added after the database was restored, before the rows of this object"
        return Conflict(log.partition, end, problem, (best.stored.name,))
    return None


def _is_not_later(rows: pa.Table, before: pa.Table) -> bool:
    if INGEST not in rows.column_names or INGEST not in before.column_names:
        return True
    at_us, before_us = rows[INGEST][0].as_py(), before[INGEST][0].as_py()
    return at_us is None or before_us is None or at_us <= before_us
