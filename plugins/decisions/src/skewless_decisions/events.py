"""The accepted events among log rows, and the times for which they are decided (SEMANTICS 9.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.ingest.streams.state_writer import PENDING_US
from skewless.infra.log.log_columns import EVENT, INGEST, REJECT, SEQ

_MILLISECOND = 1_000
_NEVER = -(2**63)


# The times for which events are decided, microseconds, and which events are late.
FindTimes: TypeAlias = Callable[[Int64Array, Int64Array, int | None], tuple[Int64Array, BoolArray]]


def find_times(ts: Int64Array, ingest: Int64Array, newest_us: int | None) -> tuple[Int64Array, BoolArray]:
    """Return the times for which consecutive accepted events of a partition are decided, and which are late.

    Times are multiples of a millisecond. A late event came after an event that is newer by more than two seconds.

    Args:
        ts: event times.
        ingest: times of acceptance.
        newest_us: greatest event time of the accepted events before them; None: there is none.

    >>> find_times(np.array([5_000_900, 1_000_000]), np.array([6_000_001, 6_000_001]), None)
    (array([5000000, 6000000]), array([False,  True]))
    """
    newest = np.maximum.accumulate(np.append(_NEVER if newest_us is None else newest_us, ts))[:-1]
    late = (newest > _NEVER) & (ts < newest - PENDING_US)
    t = np.where(late, ingest, ts) // _MILLISECOND * _MILLISECOND
    return t, np.asarray(late, dtype=np.bool_)


@dataclass(frozen=True, kw_only=True, eq=False)
class AcceptedEvents:
    """The accepted events among some rows of a log partition.

    Args:
        rows: of the log.
        seq: their positions.
        ts: their event times, microseconds.
        ingest: when they were accepted, microseconds.
    """

    rows: pa.Table
    seq: Int64Array
    ts: Int64Array
    ingest: Int64Array

    @classmethod
    def of(cls, rows: pa.Table) -> Self:
        """Return the accepted events among log rows."""
        accepted = rows if rows[REJECT].null_count == rows.num_rows else rows.filter(rows[REJECT].is_null())
        seq, ts, ingest = (accepted[name].to_numpy() for name in (SEQ, EVENT, INGEST))
        return cls(rows=accepted, seq=seq, ts=ts, ingest=ingest)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.seq)

    def select(self, which: BoolArray | Int64Array) -> AcceptedEvents:
        """Return some of the events."""
        indices: Int64Array = np.arange(len(self.seq))[which]
        rows = self.rows if len(indices) == len(self.seq) else self.rows.take(int64_array(indices))
        return AcceptedEvents(rows=rows, seq=self.seq[indices], ts=self.ts[indices], ingest=self.ingest[indices])
