"""The offline views of a project: point-in-time reads and reads by position, from log and ledger."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from infra.log.accepted import SEQ, AcceptedLog
from infra.log.known import known_ranges
from infra.log.runs import RunLedger
from infra.offline.arrays import view_read
from infra.offline.join import ROW, Order, PointInTime, at_positions, live_delays
from skewless.plan import FeaturePlan, View
from skewless.rows import ViewRead, missing
from skewless.status import Int64Array


class OfflineViews:
    """Answers from the accepted log what the online store answers from Redis."""

    def __init__(self, state: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self._state = state
        self._connection = connection
        self._join = PointInTime(connection)
        self.ledger = RunLedger(state / "runs")

    def log(self, view: View) -> AcceptedLog:
        """Return the log of a view."""
        return AcceptedLog(self._state / "log", view.partition)

    def read(self, plan: FeaturePlan, entities: pa.Table, order: Order) -> dict[str, ViewRead]:
        """Return what each view of the plan held for each entity row at its time ``__t``."""
        return {view.name: self.read_view(view, entities, order) for view in plan.views}

    def read_view(self, view: View, entities: pa.Table, order: Order) -> ViewRead:
        """Return what one view held for each entity row at its time ``__t``."""
        runs = self.ledger.runs()
        ranges = known_ranges(runs, view.partition)
        return self._join.join(view, self.log(view), entities, order, ranges=ranges, runs=runs)

    def observed_delay_us(self, view: View) -> int | None:
        """Return the median time from event to publication in live runs, to hold against the declared delay.

        None where no live run has brought a row.
        """
        live = [item for item in known_ranges(self.ledger.runs(), view.partition) if item.kind == "live"]
        if not live:
            return None
        files = self.log(view).files(live[0].first)
        rows = self._connection.sql(live_delays(live), params=[files]).fetchall()
        return None if rows[0][0] is None else int(rows[0][0])

    def at(self, view: View, seq: Int64Array) -> tuple[ViewRead, pa.Table]:
        """Return the log rows at given positions, in their order, with their keys; -1 finds nothing."""
        files = self.log(view).files()
        wanted = pa.table({SEQ: pa.array(seq), ROW: pa.array(range(len(seq)), pa.int64())})
        if not files:
            empty = pa.table({key.name: pa.nulls(len(seq)) for key in view.keys})
            return missing(view, len(seq), available=True), empty
        self._connection.register("entity_rows", wanted)
        try:
            table = self._connection.sql(at_positions(view), params=[files]).to_arrow_table()
        finally:
            self._connection.unregister("entity_rows")
        return view_read(table, view), table
