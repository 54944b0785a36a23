"""How late the events of a source became known: from the log, without reading anything but times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from skewless.contract.status import Int64Array
from skewless.contract.windows.state_layout import NEVER
from skewless.infra.log.accepted import EVENT, REJECT, SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.offline.window_events import LogPart, ended_at

LATE_US = 10_000_000
_MOST_EVENTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Delays:
    """How late events became known; of a log with more than a million events, every n-th counts.

    Args:
        events: those whose time of becoming known is recorded.
        late: the share of them that became known more than ten seconds after they happened; None without events.
        p50_s, p99_s: half of them, and 99 in 100, were known that many seconds after they happened, or sooner.
    """

    events: int
    late: float | None
    p50_s: float | None
    p99_s: float | None


def event_delays(connection: duckdb.DuckDBPyConnection, parts: Sequence[LogPart]) -> Delays:
    """Return the delays of the accepted events of a source."""
    rows = [_rows(connection, part) for part in parts if part.files]
    stride = 1 + sum(rows) // _MOST_EVENTS
    found = [_delays(connection, part, stride) for part in parts if part.files]
    delays = np.sort(np.concatenate([*found, np.empty(0, dtype=np.int64)]))
    n = len(delays)
    if not n:
        return Delays(events=0, late=None, p50_s=None, p99_s=None)
    p50, p99 = (float(delays[max(0, -(-n * share // 100) - 1)]) / 1e6 for share in (50, 99))
    return Delays(events=n, late=float((delays > LATE_US).mean()), p50_s=p50, p99_s=p99)


def _rows(connection: duckdb.DuckDBPyConnection, part: LogPart) -> int:
    found = connection.execute("SELECT count(*) FROM read_parquet(?)", [list(part.files)]).fetchall()
    return int(found[0][0])


def _delays(connection: duckdb.DuckDBPyConnection, part: LogPart, stride: int) -> Int64Array:
    """Return how long after they happened the events of a partition were known, microseconds."""
    files = list(part.files)
    there = connection.sql("SELECT * FROM read_parquet(?, union_by_name=true) LIMIT 0", params=[files]).columns
    known_sql = KNOWN_AT if KNOWN_AT in there else f"CAST(NULL AS BIGINT) AS {KNOWN_AT}"
    query = (
        f"SELECT {SEQ}, {EVENT}, {known_sql} FROM read_parquet(?, union_by_name=true)"
        f" WHERE {REJECT} IS NULL AND {SEQ} % {stride} = 0"
    )
    rows = connection.sql(query, params=[files]).fetchnumpy()
    recorded = np.ma.filled(rows[KNOWN_AT], NEVER).astype(np.int64)
    known = np.where(recorded == NEVER, ended_at(part.ends, np.asarray(rows[SEQ], dtype=np.int64)), recorded)
    told = known != NEVER
    return np.asarray(known[told] - np.asarray(rows[EVENT], dtype=np.int64)[told], dtype=np.int64)
