"""The offline views of a project: point-in-time reads and reads by position, from log and ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.plan import FeaturePlan, View
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import Int64Array
from skewless.contract.windows.view import WindowView
from skewless.infra.log.accepted import AcceptedLog
from skewless.infra.log.partitions import log_ends
from skewless.infra.log.runs import RunLedger, known_ranges
from skewless.infra.offline.join import Order, PointInTime, live_delays
from skewless.infra.offline.log_parts import log_parts
from skewless.infra.offline.window_events import LogPart
from skewless.infra.offline.window_join import WindowJoin

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class LogSnapshot:
    """A moment in the life of a log: what came later can be left out, so that work is the same whenever it is done.

    Args:
        end: the next position of the view's log.
        run_id: the last run that had ended.
    """

    end: int
    run_id: int


class OfflineViews:
    """Answers from the accepted log what the online store answers from its rows."""

    def __init__(self, state: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self._state = state
        self.connection = connection
        self._join = PointInTime(connection)
        self.join = WindowJoin(connection)
        self.ledger = RunLedger(state / "runs")

    def log(self, view: View) -> AcceptedLog:
        """Return the log of a view."""
        return AcceptedLog(self._state / "log", view.partition)

    def read(self, plan: FeaturePlan, entities: pa.Table, order: Order) -> dict[str, ViewRead]:
        """Return what each view of the plan held for each entity row at its time ``__t``."""
        rows = {view.name: self.read_view(view, entities, order) for view in plan.views}
        return rows | {view.name: self.read_window(view, entities, order) for view in plan.windows}

    def read_view(self, view: View, entities: pa.Table, order: Order) -> ViewRead:
        """Return what one view held for each entity row at its time ``__t``."""
        return self._join.read(view, self.log(view), self.find(view, entities, order))

    def find(self, view: View, entities: pa.Table, order: Order, mark: LogSnapshot | None = None) -> Int64Array:
        """Return the log position of what one view held for each entity row at its time ``__t``; -1: nothing.

        Args:
            mark: as log and ledger were when this was their mark; by default as they are.
        """
        runs = [run for run in self.ledger.runs() if mark is None or run.run_id <= mark.run_id]
        ranges = known_ranges(runs, view.partition)
        end = None if mark is None else mark.end
        return self._join.find(view, self.log(view), entities, order, ranges=ranges, runs=runs, end=end)

    def mark(self, view: View) -> LogSnapshot:
        """Return how far a view's log and the ledger have come."""
        finished = [run.run_id for run in self.ledger.runs() if run.ended_us is not None]
        return LogSnapshot(end=self.log(view).next_seq(), run_id=max(finished, default=0))

    def observed_delay_us(self, view: View) -> int | None:
        """Return the median time from event to publication in live runs, to hold against the declared delay.

        None where no live run has brought a row.
        """
        live = [item for item in known_ranges(self.ledger.runs(), view.partition) if item.kind == "live"]
        if not live:
            return None
        files = self.log(view).files(live[0].first)
        rows = self.connection.sql(live_delays(live), params=[files]).fetchall()
        return None if rows[0][0] is None else int(rows[0][0])

    def read_window(
        self, view: WindowView, entities: pa.Table, order: Order, ends: Mapping[str, int] | None = None
    ) -> ViewRead:
        """Return what a windowed view held for each entity row at its time ``__t``.

        Args:
            order: ``event_time`` or ``knowledge``.
            ends: per log partition, the last position that counts; partitions that are not named count as a whole.
        """
        mode: TimeMode = "event_time" if order == "event_time" else "knowledge"
        return self.join.read(view, self.log_parts(view), entities, mode=mode, upto=ends)

    def log_parts(self, view: WindowView) -> list[LogPart]:
        """Return the log partitions that a windowed view's events lie in."""
        return log_parts(self._state / "log", view.source)

    def log_ends(self, view: WindowView) -> Mapping[str, int]:
        """Return the last position of each of those partitions."""
        return log_ends(self._state / "log", view.source)

    def at(self, view: View, seq: Int64Array) -> ViewRead:
        """Return the log rows at given positions, in their order; -1 finds nothing."""
        return self._join.read(view, self.log(view), seq)

    def keys_at(self, view: View, seq: Int64Array) -> pa.Table:
        """Return the keys of the log rows at given positions, in their order; null for -1."""
        return self._join.keys(view, self.log(view), seq)
