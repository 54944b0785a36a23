"""Finds the few segments of a log that a page or a question about one row has to read.

A log of millions of predictions has thousands of segments. Their times and positions are in the catalog, so that the
others are neither opened nor fetched from the storage.
"""

from __future__ import annotations

from skewless.infra.log.catalog import SEGMENT_FIELDS, Segment, decode_segment
from skewless.infra.storage.database import Database


def latest_segments(
    database: Database, partition: str, *, most_rows: int, most: int, end: int | None = None
) -> list[Segment]:
    """Return the last segments of a log, the last one first; at least one, if there is one.

    Args:
        partition: of the log.
        most_rows: of all of them, unless the first has more.
        most: number of segments.
        end: only segments that begin before this position; None: all.
    """
    rows = database.query(
        f"SELECT {SEGMENT_FIELDS} FROM segments WHERE partition = ? AND first_seq < ? ORDER BY first_seq DESC LIMIT ?",
        partition,
        2**62 if end is None else end,
        most,
    )
    segments: list[Segment] = []
    for segment in map(decode_segment, rows):
        if segments and sum(each.rows for each in segments) + segment.rows > most_rows:
            break
        segments.append(segment)
    return segments


def segments_between(
    database: Database, partition: str, since_us: int, until_us: int, *, beyond: int, most: int
) -> list[Segment]:
    """Return the segments that probably have the rows of a time range, in no order.

    A segment has the time of one of its last rows. So the range is in segments with a time in it, and in the first ones
    after it. Writers add segments late while the database is down, so that rows may also be elsewhere.

    Args:
        partition: of the log.
        since_us, until_us: the range by the log's own order, UTC microseconds, both included.
        beyond: number of further segments before the range, and after it.
        most: number of segments in the range.
    """
    columns = f"SELECT {SEGMENT_FIELDS} FROM segments WHERE partition = ?"
    return [
        decode_segment(row)
        for row in (
            *database.query(f"{columns} AND at_us < ? ORDER BY at_us DESC LIMIT ?", partition, since_us, beyond),
            *database.query(
                f"{columns} AND at_us >= ? AND at_us <= ? ORDER BY at_us LIMIT ?", partition, since_us, until_us, most
            ),
            *database.query(f"{columns} AND at_us > ? ORDER BY at_us LIMIT ?", partition, until_us, beyond),
        )
    ]
