"""Measured costs, each with its unit and the benchmark that has measured it, on two cores of an AMD EPYC."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """A measured cost.

    Args:
        measured: the name of the benchmark, its work and the date; ``benchmarks/RESULTS.md`` and ``docs/scaling.md``
            have the results.
    """

    name: str
    value: float
    unit: str
    measured: str


_READS = "capacity: 12 features, 4 and 8 million events; CPU on a busy machine; 2026-11-28"
_SORTED = "capacity: a sorted log of 8 million events, 8 cores with 4 tasks each; CPU on a busy machine; 2026-11-29"
_JOIN = "larger: 10 million x 100 million rows, 4 features, 109,535 rows/s on 2 cores; 2026-11-25"
_OPEN = "serving_open: 2 views, 40 features, 200 trees, no windows; 70 % of the capacity for 60 s; 2026-11-25"
_SERVED = "serving: 2 views, 40 features, 200 trees, one row a request; 2026-11-25"
_BATCHES = "serving_many: the same with 100 rows a request; 2026-11-25"
_READ = "serving_cost: the same, one row a request; CPU on a busy machine; 2026-11-29"

EVENT = Cost("event", 0.145, "s of CPU per million events and view", _READS)
SCAN = Cost("scan", 0.010, "s of CPU per million rows of a sorted log, view and core", _SORTED)
VALUE = Cost("value", 0.251, "s of CPU per million values (rows x features)", _READS)
DRIVER = Cost("driver", 0.025, "s of CPU of the driver per million values", _READS)
LATEST = Cost("latest", 1.66, "s of a core per million rows, of log and entity rows together", _JOIN)
LOG_BYTES = Cost("log_bytes", 10.4, "bytes per event and column", "capacity: events with 2 number columns; 2026-11-29")
KEY = Cost("key", 72.2, "bytes of Redis beyond name and value", "capacity: Redis 8.0.2 with jemalloc; 2026-11-28")
WRITE = Cost("write", 132_561, "rows/s of a client and a server", "materialize_large: 10 million entities; 2026-11-25")
SERVER = Cost("server", 178_807, "rows/s of a server", "materialize_large: a late fifth of the writes; 2026-11-25")
UPDATE = Cost("update", 499_380, "events/s x views of a worker and a server", "ingest: 4 views x 12; 2026-11-25")
PREDICT = Cost("predict", 11_909, "predictions/s of a core, with another for Redis", _OPEN)
REPLAY = Cost("replay", 30_295, "predictions/s of a core", "replay: 400,000 predictions; 2026-11-25")
# Of a request of one row, by the number of callers at the same time.
REQUESTS = {
    callers: Cost(f"request_{callers}", value, f"us of CPU of the server a request, {callers} callers", _SERVED)
    for callers, value in ((1, 295.0), (16, 71.4), (64, 56.3))
}
ROWS = {
    callers: Cost(f"row_{callers}", value, f"us of CPU of the server a row, {callers} callers", _BATCHES)
    for callers, value in ((1, 20.0), (16, 17.0))
}
REDIS_READS = {
    callers: Cost(f"redis_{callers}", value, f"us of CPU of Redis a read of 2 views, {callers} callers", _READ)
    for callers, value in ((1, 57.9), (16, 8.55), (64, 5.14))
}
LOGGED = Cost("logged", 226, "bytes of the prediction log a prediction", _READ)
_PREDICTIONS = (*REQUESTS.values(), *ROWS.values(), *REDIS_READS.values(), LOGGED)
COSTS = (EVENT, SCAN, VALUE, DRIVER, LATEST, LOG_BYTES, KEY, WRITE, SERVER, UPDATE, PREDICT, REPLAY, *_PREDICTIONS)
