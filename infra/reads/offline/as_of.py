"""Build the SQL of the as-of join: match on narrow rows first, then fetch the wide columns by row id.

Only keys, times, ranks and row ids pass through sorts and windows. Values do not, so they stay equal bit for bit
(-0.0, NaN payloads, int64 beyond 2^53), and memory does not grow with the number of columns.

Each row of a history is valid from a time on. There are two kinds of queries::

    latest           the row that became valid last; among equals the highest rank
    running maximum  the highest rank among all rows valid so far, as in a store that keeps the newer row

The history comes first in the text, so its parameters are bound first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.infra.reads.offline.sql import quote, quote_all

ROW = "__row"
TIME = "__t"
ID = "__id"
_ID_BITS = 63


@dataclass(frozen=True, kw_only=True)
class History:
    """Rows that are each valid from a time on.

    Args:
        relation: SQL after FROM; may contain ``?``, which the caller binds.
        keys: key columns, named as in the entity rows; a row with a null key never matches.
        valid_from: SQL of int64 microseconds; null: never valid.
        rank: SQL of int64 numbers, least significant last, without nulls: the order of rows (see above).
            The id decides between equal ranks.
        row_id: SQL of a BIGINT >= 0, unique and constant for all reads of the relation: log position,
            ``rowid`` or file position. A relation without one must be copied to a temporary table first.
        columns: columns to fetch of the matched rows.
        condition: SQL condition on the rows.
        running: query the running maximum instead of the latest row.
    """

    relation: str
    keys: Sequence[str]
    valid_from: str
    rank: Sequence[str]
    row_id: str
    columns: Sequence[str]
    condition: str = "true"
    running: bool = False


@dataclass(frozen=True, kw_only=True)
class KeyPart:
    """One of ``count`` equal parts of the keys, by their hash: large joins run part by part."""

    number: int = 0
    count: int = 1


def winners_sql(history: History, entities: str, part: KeyPart | None = None) -> str:
    """Return SQL for ``__row`` and ``__id``: the history row that each entity row matches; no row without a match.

    Args:
        entities: a relation with the keys, ``__t`` (int64 microseconds) and ``__row`` (unique BIGINT).
        part: restrict the query to the keys of one part.

    >>> log = History(relation="log", keys=["k"], valid_from="ts", rank=["made"], row_id="seq", columns=["v"])
    >>> import duckdb
    >>> con = duckdb.connect()
    >>> _ = con.execute("CREATE TABLE log AS FROM (VALUES (1, 10, 0, 0), (1, 10, 5, 1)) t(k, ts, made, seq)")
    >>> _ = con.execute("CREATE TABLE entities AS FROM (VALUES (0, 1, 9), (1, 1, 10), (2, NULL, 10)) t(__row, k, __t)")
    >>> con.sql(winners_sql(log, "entities")).fetchall()
    [(1, 1)]
    """
    keys = quote_all(history.keys)
    best = _running(keys) if history.running else _latest(keys, len(history.rank))
    both = f"{_candidates(history)} UNION ALL {_entity_rows_sql(history, entities)}"
    # All rows of a key, on both sides, fall into one part, so no match crosses two parts.
    if part is not None and part.count > 1:
        both = f"SELECT * FROM ({both}) WHERE hash({keys}) % {part.count} = {part.number}"
    return (
        f"SELECT {ROW}, {ID} FROM (SELECT {ROW}, {best} AS {ID} FROM ({both}))"
        f" WHERE {ROW} IS NOT NULL AND {ID} IS NOT NULL"
    )


def rows_sql(history: History, ids: str, columns: Sequence[str]) -> str:
    """Return SQL for ``__id`` and columns of the history rows with the given ids, in any order.

    Args:
        ids: a relation with one column ``__id``, without duplicates.

    >>> log = History(relation="log", keys=["k"], valid_from="ts", rank=[], row_id="seq", columns=["v"])
    >>> rows_sql(log, "ids", ["v"])
    'SELECT h.* FROM (SELECT seq AS __id, "v" FROM log WHERE true) h SEMI JOIN ids w ON h.__id = w.__id'
    """
    listed = ", ".join([f"{history.row_id} AS {ID}", *(quote(column) for column in columns)])
    rows = f"SELECT {listed} FROM {history.relation} WHERE {history.condition}"
    return f"SELECT h.* FROM ({rows}) h SEMI JOIN {ids} w ON h.{ID} = w.{ID}"


def _candidates(history: History) -> str:
    """Return SQL for the history as one side of the union: keys, valid-from time, no entity row, ranks."""
    keys = quote_all(history.keys)
    ranks = [f"__rank_{i}" for i in range(len(history.rank))]
    narrow = [keys, f"{history.valid_from} AS {TIME}", f"CAST(NULL AS BIGINT) AS {ROW}"]
    narrow += [f"{rank} AS {name}" for rank, name in zip(history.rank, ranks, strict=True)]
    narrow.append(f"{history.row_id} AS {ID}")
    condition = " AND ".join([f"({history.condition})", *(f"{quote(key)} IS NOT NULL" for key in history.keys)])
    rows = f"SELECT {', '.join(narrow)} FROM {history.relation} WHERE {condition}"
    if not history.running:
        return f"SELECT * FROM ({rows}) WHERE {TIME} IS NOT NULL"
    # Rank and id in one number, so that the maximum contains its id. A single rank needs no numbering.
    rank = f"row_number() OVER (PARTITION BY {keys} ORDER BY {', '.join([*ranks, ID])})"
    if len(ranks) == 1:
        rank = ranks[0]
    # Ids are below 2^63, so the low bits of the maximum are the id. Without 128 bits, a rank in microseconds would
    # overflow.
    code = f"CAST({rank} AS HUGEINT) * {1 << _ID_BITS} + {ID}"
    return f"SELECT {keys}, {TIME}, {ROW}, {code} AS __code FROM ({rows}) WHERE {TIME} IS NOT NULL"


def _entity_rows_sql(history: History, entities: str) -> str:
    nulls = ["NULL"] if history.running else ["NULL"] * (len(history.rank) + 1)
    columns = f"{quote_all(history.keys)}, {TIME}, {ROW}, {', '.join(nulls)}"
    return f"SELECT {columns} FROM {entities} WHERE {TIME} IS NOT NULL"


def _latest(keys: str, ranks: int) -> str:
    # Only entity rows have a __row. NULLS FIRST puts the history before entity rows of the same time, so a row with
    # `event time = t` counts (SEMANTICS 2.1). The ranks order the history among itself.
    order = ", ".join([TIME, f"{ROW} NULLS FIRST", *(f"__rank_{i}" for i in range(ranks)), ID])
    return f"last_value({ID} IGNORE NULLS) OVER (PARTITION BY {keys} ORDER BY {order} ROWS UNBOUNDED PRECEDING)"


def _running(keys: str) -> str:
    # As in `_latest`, a row that became valid exactly at t counts: a frame of RANGE includes all rows of one time.
    code = f"max(__code) OVER (PARTITION BY {keys} ORDER BY {TIME} RANGE UNBOUNDED PRECEDING)"
    return f"CAST({code} & {(1 << _ID_BITS) - 1} AS BIGINT)"
