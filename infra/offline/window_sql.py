"""SQL text of what windowed views read of event logs: whose events, which of them, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.columns import Column
from skewless.contract.windows.aggregate_inputs import sum_limits
from skewless.contract.windows.view import WindowView
from skewless.infra.log.accepted import EVENT, REJECT, SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.sql import names, quote, same_keys

KEY = "__key"
PART = "__part"
_FROM = "__from"
_UNTIL = "__until"
_ALWAYS = 2**62


@dataclass(frozen=True, kw_only=True)
class PartitionScan:
    """What is read of one partition.

    Args:
        number: stands for the partition in ``__part``.
        columns: the names of the columns that its files have; others are read as null.
        last: the last position that counts; None: all do.
    """

    number: int
    columns: frozenset[str]
    last: int | None = None


def events_sql(keys: Sequence[Column], inputs: Sequence[Column], scans: Sequence[PartitionScan], *, known: bool) -> str:
    """Return SQL for the accepted events with whole keys: keys, inputs, origin; bind each partition's files.

    Args:
        known: read too when each was known, as far as its row says.

    >>> from skewless.contract.dtypes import DType
    >>> scan = PartitionScan(number=3, columns=frozenset({"id"}), last=9)
    >>> events_sql([Column(name="id", dtype=DType.INT64)], [Column(name="x", dtype=DType.FLOAT64)], [scan], known=False)
    'SELECT CAST("id" AS BIGINT) AS "id", CAST(NULL AS DOUBLE) AS "x", __event_ts, __seq, 3 AS __part \
FROM read_parquet(?, union_by_name=true) WHERE __reject IS NULL AND "id" IS NOT NULL AND __seq <= 9'
    """
    return " UNION ALL ".join(_scan_sql(keys, inputs, scan, known=known) for scan in scans)


def asked_keys_sql(keys: Sequence[str], entities: str, reach_us: int | None) -> str:
    """Return SQL for the distinct whole keys of entity rows: numbered from 0, and which times matter to them.

    Args:
        reach_us: how far before ``__t`` a window may begin; None: all times matter.
    """
    listed = names(keys)
    whole = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    span = (f"min({TIME}) - {reach_us}", f"max({TIME})") if reach_us is not None else (f"-{_ALWAYS}", f"{_ALWAYS}")
    return (
        f"SELECT {listed}, row_number() OVER () - 1 AS {KEY}, {span[0]} AS {_FROM}, {span[1]} AS {_UNTIL}"
        f" FROM {entities} WHERE {whole} GROUP BY {listed}"
    )


def all_keys_sql(keys: Sequence[str], events: str) -> str:
    """Return SQL for all keys that events have, numbered as in ``asked_keys_sql``; bind the files of the events."""
    listed = names(keys)
    return (
        f"SELECT {listed}, row_number() OVER () - 1 AS {KEY}, min({EVENT}) AS {_FROM},"
        f" max({EVENT}) + 1 AS {_UNTIL} FROM ({events}) GROUP BY {listed}"
    )


def places_sql(keys: Sequence[str], entities: str, row: str, numbered: str) -> str:
    """Return SQL for the row numbers of entity rows with whole keys, and the number of each one's key."""
    return (
        f"SELECT e.{quote(row)}, k.{KEY} FROM {entities} e JOIN {numbered} k ON {same_keys(keys, 'e', 'k')}"
        f" ORDER BY k.{KEY}, e.{TIME}"
    )


def timeline_sql(keys: Sequence[str], events: str, numbered: str) -> str:
    """Return SQL for the events of numbered keys, with ``__key``, by key, time and position."""
    return (
        f"SELECT k.{KEY}, e.* FROM ({events}) e JOIN {numbered} k ON {same_keys(keys, 'e', 'k')}"
        f" WHERE e.{EVENT} >= k.{_FROM} AND e.{EVENT} < k.{_UNTIL} ORDER BY {KEY}, {EVENT}, {PART}, {SEQ}"
    )


def large_sql(view: WindowView) -> str:
    """Return a condition that holds for all events with a value too large for an exact sum, and for few others.

    Of what a transform derives SQL knows nothing: then it holds for all events.
    """
    conditions = []
    for name, most in sum_limits(view).items():
        if name in {column.name for column in view.logged_inputs}:
            # Short of the limit, for what rounding does to it; NaN is larger than any number.
            bound = 0.999 * most / 10 ** view.scales.get(name, 0)
            conditions.append(f"abs(CAST({quote(name)} AS DOUBLE)) >= {bound!r}")
        elif name != view.event_column:
            return "true"
    return " OR ".join(conditions) or "false"


def _scan_sql(keys: Sequence[Column], inputs: Sequence[Column], scan: PartitionScan, *, known: bool) -> str:
    listed = [_typed(column, scan.columns) for column in (*keys, *inputs)]
    listed += [EVENT, SEQ, f"{scan.number} AS {PART}"]
    if known:
        listed.append(KNOWN_AT if KNOWN_AT in scan.columns else f"CAST(NULL AS BIGINT) AS {KNOWN_AT}")
    wanted = [f"{REJECT} IS NULL", *(f"{quote(key.name)} IS NOT NULL" for key in keys)]
    if scan.last is not None:
        wanted.append(f"{SEQ} <= {scan.last}")
    return f"SELECT {', '.join(listed)} FROM read_parquet(?, union_by_name=true) WHERE {' AND '.join(wanted)}"


def _typed(column: Column, present: frozenset[str]) -> str:
    """Return SQL for a column of a log in its declared type; one that was declared later is null in older files."""
    name = quote(column.name)
    return f"CAST({name if column.name in present else 'NULL'} AS {column.dtype.sql}) AS {name}"
