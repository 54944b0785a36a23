"""Decides entities when their row in a latest-value view changes (SEMANTICS 9.7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skewless.contract.clock import Clock
from skewless.contract.keys import KeyCodec, marker_key
from skewless.contract.plan import View
from skewless.contract.rows import RowCodec
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import BlockingOnlineReader
from skewless.infra.records.predictions.record import DecidedEvents
from skewless_decisions.decider import SourceDecider
from skewless_decisions.decision_log import DeadEvent
from skewless_decisions.events import AcceptedEvents
from skewless_decisions.pending_events import PendingEvents

_MILLISECOND = 1_000


class CurrentRows:
    """Matches the rows of a view that the online store has now: a row that was replaced meanwhile is not decided.

    A deletion is not decided either.
    """

    def __init__(self, project: str, view: View, reader: BlockingOnlineReader) -> None:
        self._view, self._reader = view, reader
        self._keys, self._rows = KeyCodec(project, view), RowCodec(view)

    def find_matches(
        self, events: AcceptedEvents, times: DecidedEvents, pending: PendingEvents
    ) -> tuple[BoolArray, Sequence[DeadEvent]]:
        """Return which rows are current; see ``Condition``."""
        del times, pending
        names = self._keys.encode_columns({key.name: events.rows[key.name].to_pylist() for key in self._view.keys})
        distinct = [name for name in dict.fromkeys(names) if name is not None]
        stored = dict(zip(distinct, self._reader.get(distinct), strict=True)) if distinct else {}
        read = self._rows.decode([None if name is None else stored[name] for name in names])
        return np.asarray(read.has_row & (read.versions.seq == events.seq), dtype=np.bool_), ()


def find_current_times(
    clock: Clock, ts: Int64Array, ingest: Int64Array, newest_us: int | None
) -> tuple[Int64Array, BoolArray]:
    """Return the clock as the time of each decision, as for a request; no row is late. See ``find_times``."""
    del ingest, newest_us
    t = clock.now_us() // _MILLISECOND * _MILLISECOND
    return np.full(len(ts), t, dtype=np.int64), np.zeros(len(ts), dtype=np.bool_)


class ChangeDecider:
    """Decides the published rows of one view for one decision stream; used from one thread.

    Args:
        decider: of the rows.
    """

    def __init__(
        self, state: ProjectState, project: str, view: View, reader: BlockingOnlineReader, decider: SourceDecider
    ) -> None:
        self.decider = decider
        self._view, self._reader = view, reader
        self._marker = marker_key(project, view)
        self._log = PartitionLog(state, view.partition)

    def step(self) -> None:
        """Decide some rows that were published since the last call.

        Raises:
            StoreError: the online store or the database is unavailable.
            ConflictError: another process decides them.
        """
        _, (marker,) = self._reader.get_with_markers([], [self._marker])
        if marker is None or marker.position < 0:
            return
        for stream in self.decider.streams:
            self.decider.log.begin_view(stream.name, self._view.partition, marker.position)
        self.decider.extend(self._view.partition, marker.position + 1)
        self.decider.catch_up(self._log)
