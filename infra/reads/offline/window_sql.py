"""Build the SQL of reads of event logs for windowed views: events, numbered keys, and their join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skewless.contract.columns import Column
from skewless.contract.windows.aggregate_inputs import sum_limits
from skewless.contract.windows.view import WindowView
from skewless.infra.log.log_columns import EVENT, KNOWN_AT, REJECT, SEQ
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.sql import quote, quote_all, same_keys_sql

if TYPE_CHECKING:
    import duckdb

KEY = "__key"
PART = "__part"
_FROM = "__from"
_UNTIL = "__until"
_FIRST = "__first"
_LAST = "__last"
_ALWAYS = 2**62


@dataclass(frozen=True, kw_only=True)
class PartitionScan:
    """The read of some files of one partition.

    Args:
        number: number of the partition in ``__part``.
        columns: names of the columns in its files; other columns are read as null.
        last: last position that counts; None: all positions.
        condition: on the rows of its files; empty: all rows.
    """

    number: int
    columns: frozenset[str]
    last: int | None = None
    condition: str = ""


def events_sql(keys: Sequence[Column], inputs: Sequence[Column], scans: Sequence[PartitionScan], *, known: bool) -> str:
    """Return SQL for the accepted events with complete keys: keys, inputs, origin; bind the files of each scan.

    Args:
        known: read the recorded known time of each event, too.

    >>> from skewless.contract.dtypes import DType
    >>> scan = PartitionScan(number=3, columns=frozenset({"id"}), last=9)
    >>> events_sql([Column(name="id", dtype=DType.INT64)], [Column(name="x", dtype=DType.FLOAT64)], [scan], known=False)
    'SELECT CAST("id" AS BIGINT) AS "id", CAST(NULL AS DOUBLE) AS "x", __event_ts, __seq, 3 AS __part \
FROM read_parquet(?, union_by_name=true) WHERE __reject IS NULL AND "id" IS NOT NULL AND __seq <= 9'
    """
    return " UNION ALL ".join(_scan_sql(keys, inputs, scan, known=known) for scan in scans)


def row_keys_sql(keys: Sequence[str], entities: str, reach_us: int | None, most: int | None = None) -> str:
    """Return SQL for the distinct complete keys of entity rows, numbered from 0, with the event times to read.

    A key has a number for each ``most`` of its rows, in the order of their times; rows of one time share a number.

    Args:
        reach_us: how far before ``__t`` a window may begin; None: read all times.
        most: None: one number for all rows of a key.
    """
    listed = quote_all(keys)
    has_key = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    group = ""
    if most is not None:
        group = ", __group"
        place = f"(rank() OVER (PARTITION BY {listed} ORDER BY {TIME}) - 1) // {most} AS __group"
        entities = f"(SELECT {listed}, {TIME}, {place} FROM {entities})"
    first, last = (f"min({TIME})", f"max({TIME})") if reach_us is not None else (f"-{_ALWAYS}", f"{_ALWAYS}")
    return (
        f"SELECT {listed}, row_number() OVER () - 1 AS {KEY}, {first} - {reach_us or 0} AS {_FROM}, {last} AS {_UNTIL},"
        f" {first} AS {_FIRST}, {last} AS {_LAST} FROM {entities} WHERE {has_key} GROUP BY {listed}{group}"
    )


def count_most_rows(connection: duckdb.DuckDBPyConnection, keys: Sequence[str], entities: str) -> int:
    """Return the number of entity rows of the key that has most; 0: there are no rows."""
    query = f"SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM {entities} GROUP BY {quote_all(keys)})"
    ((most,),) = connection.sql(query).fetchall()
    return int(most)


def all_keys_sql(keys: Sequence[str], events: str) -> str:
    """Return SQL for all keys of events, numbered as in ``row_keys_sql``; bind the files of the events."""
    listed = quote_all(keys)
    return (
        f"SELECT {listed}, row_number() OVER () - 1 AS {KEY}, min({EVENT}) AS {_FROM},"
        f" max({EVENT}) + 1 AS {_UNTIL} FROM ({events}) GROUP BY {listed}"
    )


def row_numbers_sql(keys: Sequence[str], entities: str, row: str, numbered: str) -> str:
    """Return SQL for the row numbers of entity rows with complete keys, and their key numbers."""
    return (
        f"SELECT e.{quote(row)}, k.{KEY} FROM {entities} e JOIN {numbered} k ON {same_keys_sql(keys, 'e', 'k')}"
        f" AND e.{TIME} >= k.{_FIRST} AND e.{TIME} <= k.{_LAST} ORDER BY k.{KEY}, e.{TIME}"
    )


def timeline_sql(keys: Sequence[str], events: str, numbered: str) -> str:
    """Return SQL for the events of numbered keys, with ``__key``, sorted by key, time and position."""
    return (
        # An event at t is not in the window of t (SEMANTICS 3.1). Time, partition and position are the order of `first`
        # and `last` (3.3): partitions are numbered by their hashes.
        f"SELECT k.{KEY}, e.* FROM ({events}) e JOIN {numbered} k ON {same_keys_sql(keys, 'e', 'k')}"
        f" WHERE e.{EVENT} >= k.{_FROM} AND e.{EVENT} < k.{_UNTIL} ORDER BY {KEY}, {EVENT}, {PART}, {SEQ}"
    )


def unsummable_sql(view: WindowView) -> str:
    """Return a SQL condition that selects all events with a value too large for an exact sum, and few others.

    If a transform derives a summed column, which SQL cannot do, the condition selects all events.
    """
    conditions = []
    for name, limit in sum_limits(view).items():
        if name in {column.name for column in view.logged_inputs}:
            # A little below the limit, because of rounding; NaN is larger than any number.
            bound = 0.999 * limit / 10 ** view.scales.get(name, 0)
            conditions.append(f"abs(CAST({quote(name)} AS DOUBLE)) >= {bound!r}")
        elif name != view.event_column:
            return "true"
    return " OR ".join(conditions) or "false"


def _scan_sql(keys: Sequence[Column], inputs: Sequence[Column], scan: PartitionScan, *, known: bool) -> str:
    listed = [_typed(column, scan.columns) for column in (*keys, *inputs)]
    listed += [EVENT, SEQ, f"{scan.number} AS {PART}"]
    if known:
        listed.append(KNOWN_AT if KNOWN_AT in scan.columns else f"CAST(NULL AS BIGINT) AS {KNOWN_AT}")
    conditions = [f"{REJECT} IS NULL", *(f"{quote(key.name)} IS NOT NULL" for key in keys)]
    if scan.last is not None:
        conditions.append(f"{SEQ} <= {scan.last}")
    if scan.condition:
        conditions.append(scan.condition)
    return f"SELECT {', '.join(listed)} FROM read_parquet(?, union_by_name=true) WHERE {' AND '.join(conditions)}"


def _typed(column: Column, present: frozenset[str]) -> str:
    """Return SQL for a log column in its declared type; a column that older files do not have is null there."""
    name = quote(column.name)
    return f"CAST({name if column.name in present else 'NULL'} AS {column.dtype.sql}) AS {name}"
