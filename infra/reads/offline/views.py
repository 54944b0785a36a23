"""Offline reads of a project's views, point-in-time or by position, from logs and ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skewless.contract.errors import SourceError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import Int64Array
from skewless.contract.windows.view import WindowView
from skewless.infra.log.bucket_order import BucketRange
from skewless.infra.log.catalog import log_ends, log_partitions
from skewless.infra.log.clock_skews import ClockSkews
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.read_progress import Progress
from skewless.infra.log.runs import RunLedger
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.join import Order, PointInTimeJoin, find_live_delay
from skewless.infra.reads.offline.log_parts import read_log_partitions
from skewless.infra.reads.offline.window_events import LogPartition
from skewless.infra.reads.offline.window_join import WindowJoin

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

DELAY_RUNS = 1_000  # enough for a median, in a project of any age


@dataclass(frozen=True, kw_only=True)
class LogSnapshot:
    """The extent of a log at one time; reads with it give the same result at any later time.

    Args:
        end: the next position of the view's log.
        run_id: the last finished run.
    """

    end: int
    run_id: int


@dataclass(frozen=True, kw_only=True)
class LogExtents:
    """The extents of the logs of several views; views without an entry are read as they are now.

    Args:
        views: per latest-value view.
        windows: per windowed view and log partition, the last position that counts.
    """

    views: Mapping[str, LogSnapshot] = field(default_factory=dict)
    windows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


ReadRows = Callable[[int, int], dict[str, ViewRead]]
"""The result of a search for many entity rows: returns the read of each view for ``count`` rows from a number on."""


class OfflineViews:
    """Reads from the accepted log what the online store serves from its rows.

    Args:
        buckets: of the entities that are read, others are not found; None: all.
    """

    def __init__(
        self, state: ProjectState, connection: duckdb.DuckDBPyConnection, buckets: BucketRange | None = None
    ) -> None:
        self.state = state
        self.connection = connection
        self._join = PointInTimeJoin(connection, buckets)
        self.join = WindowJoin(connection, buckets=buckets)
        self.ledger = RunLedger(state.database)
        self.clock_skews = ClockSkews(state.database)

    def log(self, view: View) -> PartitionLog:
        """Return the log of a view."""
        return PartitionLog(self.state, view.partition)

    def check_filled(self, plan: FeaturePlan) -> None:
        """Check that each view of a plan has been filled once; all features of another view would be null.

        Raises:
            SourceError: no run has accepted the rows of a view, or the source of a windowed view has no log.
        """
        for view in plan.views:
            # A source without due rows leaves no log, but has been read.
            if not self.log(view).next_seq() and Progress.read(self.state, view) is None:
                fix = "run `skewless materialize`"
                raise SourceError(f"view {view.name!r}", "has never been materialized", fix=fix)
        self.check_events(plan)

    def check_events(self, plan: FeaturePlan) -> None:
        """Check that the source of each windowed view of a plan has a log.

        Raises:
            SourceError: a source has none.
        """
        for window in plan.windows:
            if not log_partitions(self.state, window.source):
                raise SourceError(
                    f"windowed view {window.name!r}",
                    "has no accepted event",
                    value=f"event source {window.source!r}",
                    fix="run `skewless import` or `skewless stream`",
                )

    def read(self, plan: FeaturePlan, entities: pa.Table, order: Order) -> dict[str, ViewRead]:
        """Return the read of each view of the plan for each entity row at its time ``__t``."""
        with self.search(plan, entities, order, LogExtents()) as read_rows:
            return read_rows(0, entities.num_rows)

    @contextmanager
    def search(self, plan: FeaturePlan, entities: pa.Table, order: Order, extents: LogExtents) -> Iterator[ReadRows]:
        """Search the logs for the rows of many entity rows at once; their values are read part by part.

        Only positions are kept, 8 bytes per row and view. A window has no position, so it is computed with its part.
        """
        positions = {
            view.name: self.find_positions(view, entities, order, extents.views.get(view.name)) for view in plan.views
        }

        def read_rows(first: int, count: int) -> dict[str, ViewRead]:
            rows = {
                view.name: self.read_positions(view, positions[view.name][first : first + count]) for view in plan.views
            }
            part, ends = entities.slice(first, count), extents.windows
            return rows | {view.name: self.read_window(view, part, order, ends.get(view.name)) for view in plan.windows}

        yield read_rows

    def read_view(self, view: View, entities: pa.Table, order: Order) -> ViewRead:
        """Return the read of one view for each entity row at its time ``__t``."""
        return self._join.read(view, self.log(view), self.find_positions(view, entities, order))

    def find_positions(
        self, view: View, entities: pa.Table, order: Order, snapshot: LogSnapshot | None = None
    ) -> Int64Array:
        """Return the log position of one view's row for each entity row at its time ``__t``; -1: none.

        Args:
            snapshot: read log and ledger as of this snapshot; None: as they are now.
        """
        end, upto = (None, None) if snapshot is None else (snapshot.end, snapshot.run_id)
        return self._join.find_positions(view, self.log(view), entities, order, ledger=self.ledger, upto=upto, end=end)

    def take_snapshot(self, view: View) -> LogSnapshot:
        """Return the current extent of a view's log and of the ledger."""
        # The end of a run decides when its rows were known. Runs exclude each other, so no run with a smaller id ends
        # later.
        return LogSnapshot(run_id=self.ledger.last_finished(), end=self.log(view).next_seq())

    def observed_delay_us(self, view: View, *, rows: int | None = None) -> int | None:
        """Return the median time from event to publication in the latest live runs, to compare with the declared delay.

        None if none of them has accepted a row.

        Args:
            rows: only runs that applied some of the latest rows of the log; None: the latest runs.
        """
        recent = self.ledger.recent_ranges(view.partition, DELAY_RUNS)
        live = recent.select(recent.is_live)
        if rows is not None:
            first = live.end + 1 - rows
            live = live.select(live.last >= first)
            live = live._replace(first=np.maximum(live.first, first))
        return find_live_delay(self.connection, self.log(view), live)

    def read_window(
        self, view: WindowView, entities: pa.Table, order: Order, ends: Mapping[str, int] | None = None
    ) -> ViewRead:
        """Return the read of a windowed view for each entity row at its time ``__t``.

        Args:
            order: ``event_time`` or ``knowledge``.
            ends: per log partition, the last position that counts; of other partitions all positions count.
        """
        mode: TimeMode = "event_time" if order == "event_time" else "knowledge"
        return self.join.read(view, self.log_partitions(view), entities, mode=mode, upto=ends)

    def log_partitions(self, view: WindowView) -> list[LogPartition]:
        """Return the log partitions of a windowed view's events."""
        return read_log_partitions(self.state, view.source)

    def log_ends(self, view: WindowView) -> Mapping[str, int]:
        """Return the last position of each log partition of a windowed view's events."""
        return log_ends(self.state, view.source)

    def read_positions(self, view: View, seq: Int64Array) -> ViewRead:
        """Return the log rows at positions, in their order; -1: no row."""
        return self._join.read(view, self.log(view), seq)

    def read_keys(self, view: View, seq: Int64Array) -> pa.Table:
        """Return the keys of the log rows at positions, in their order; null for -1."""
        return self.read_columns(view, seq, [column.name for column in view.keys])

    def read_columns(self, view: View, seq: Int64Array, columns: Sequence[str]) -> pa.Table:
        """Return columns of the log rows at positions, in their order; null for -1."""
        return self._join.read_columns(view, self.log(view), seq, columns)
