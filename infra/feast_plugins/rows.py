"""Convert Feast's rows to packed rows, for direct writes to the online store (pushes)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from skewless.contract.clock import Clock, to_us
from skewless.contract.errors import SourceError
from skewless.contract.rows import NO_TIME, Versions
from skewless.contract.status import Int64Array
from skewless.infra.feast_plugins.entity_keys import encode_keys, key_columns
from skewless.infra.feast_plugins.stored_views import StoredView
from skewless.infra.feast_plugins.values import pack_values
from skewless.infra.online.port import Binaries

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_NO_RUN = -1


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """Rows to write: keys, event times (microseconds) and packed bytes, in the order of arrival."""

    keys: Binaries
    event_ts: Int64Array
    rows: pa.LargeBinaryArray


class Positions:
    """Numbers direct writes: the clock in microseconds, but strictly growing and above 2^50."""

    def __init__(self, clock: Clock) -> None:
        """Start at the current time."""
        self._clock = clock
        # Greater than each position of a log: of rows with equal times the direct write wins, and of two direct writes
        # the later (SEMANTICS 2.3).
        self._next = 2**50
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return the current time, UTC microseconds."""
        return self._clock.now_us()

    def reserve(self, n: int) -> Int64Array:
        """Return n numbers, each unique in this process."""
        with self._lock:
            first = max(self._next, self._clock.now_us())
            self._next = first + n
        return np.arange(first, first + n, dtype=np.int64)


def pack_rows(stored: StoredView, project: str, data: Sequence[Row], positions: Int64Array) -> PackedRows:
    """Return the keys and rows of a direct write.

    Raises:
        SourceError: a key or an event time is null, or a value has another type than its feature.
        RequestError: a key has another type than declared.
    """
    view = stored.view
    keys = encode_keys(stored.key_codec(project), view, key_columns([row[0] for row in data]))
    values, nulls = pack_values(stored, [row[1] for row in data])
    versions = _versions(stored, data, positions)
    rows = stored.codec.pack(versions, values, nulls)
    named = [key for key in keys if key is not None]
    if len(named) < len(rows):
        raise SourceError(
            f"view {view.name!r}",
            "was sent a row with a null key",
            value=keys.index(None) if None in keys else None,
            fix="remove such rows",
        )
    return PackedRows(keys=named, event_ts=versions.event_ts, rows=rows)


def _versions(stored: StoredView, data: Sequence[Row], positions: Int64Array) -> Versions:
    event = [_to_us(row[2]) for row in data]
    created = [_to_us(row[3]) for row in data]
    if None in event:
        raise SourceError(
            f"view {stored.view.name!r}",
            "was sent a row without an event time",
            value=event.index(None),
            fix="fill the timestamp column",
        )
    created_ts = np.array([NO_TIME if time_us is None else time_us for time_us in created], dtype=np.int64)
    return push_versions(np.array(event, dtype=np.int64), created_ts, positions)


def push_versions(event_ts: Int64Array, created_ts: Int64Array | None, positions: Int64Array) -> Versions:
    """Return the versions of directly written rows; ``created_ts`` None: no row has a created time."""
    n = len(positions)
    return Versions(
        event_ts=event_ts,
        created_ts=np.full(n, NO_TIME, dtype=np.int64) if created_ts is None else created_ts,
        seq=positions,
        run_id=np.full(n, _NO_RUN, dtype=np.int64),
        tombstone=np.zeros(n, dtype=np.bool_),
    )


def _to_us(time: datetime | None) -> int | None:
    # pandas.NaT, the null of times in pandas, is the only time that differs from itself.
    return None if time is None or time != time else to_us(time)  # noqa: PLR0124
