"""Materialization: source rows -> accepted log -> latest row of each entity in the online store.

Every step can be repeated. New rows are found by comparison with the log. Applying starts after the store's own marker,
and the newer row wins. The end of the run is recorded last. So the next run completes a crashed one
(SEMANTICS 1.4, 2.3, 2.6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.clock import Clock
from skewless.contract.errors import GateError, SourceError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plan import View
from skewless.infra.definitions.plans.needed_views import NeededViews
from skewless.infra.ingest.materialization.latest_rows import BACKFILLS, LatestRows
from skewless.infra.ingest.materialization.run_report import OnStep, Pending, RunStep, ViewReport
from skewless.infra.ingest.materialization.skipped_rows import reject_skipped, save_skipped
from skewless.infra.log.daily_counts import DailyCounts, RowCounts
from skewless.infra.log.log_columns import INGEST, REJECT, RUN
from skewless.infra.log.partition_log import PartitionLog, StagedRows
from skewless.infra.log.read_progress import Progress
from skewless.infra.log.runs import Coverage, Kind, RunLedger
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.offline.changes import ORDINARY, EventRange, NewRows, SourceSlice, Window, read_pending
from skewless.infra.reads.offline.engine import leave_memory
from skewless.infra.reads.offline.sources import Table, view_table
from skewless.infra.reads.online.port import LOST, Marker, OnlineWriter

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 100_000
_log = EventLogger()

Check = Callable[[View, Path], None]


@dataclass(frozen=True, kw_only=True)
class Materializer:
    """Materializes the views of one project.

    Args:
        state: the project's state folder.
        online: returns the online store; called only by runs.
        needed: the needed views. If a version that only models read cannot be updated, it is reported, not raised.
        strict: fail if a row is skipped for any reason except that it is not due yet.
        write: writes latest rows to the store.
    """

    project: str
    repo: Path
    state: ProjectState
    connection: duckdb.DuckDBPyConnection
    online: Callable[[], OnlineWriter]
    ledger: RunLedger
    clock: Clock
    needed: NeededViews | None = None
    strict: bool = False
    write: Callable[[LatestRows, OnlineWriter, int, Callable[[int], None]], tuple[int, int]] = LatestRows.write

    def run(
        self,
        views: Sequence[View],
        check: Check | None = None,
        *,
        events: EventRange | None = None,
        naive_is_utc: bool = False,
        on_step: OnStep | None = None,
    ) -> list[ViewReport]:
        """Accept the rows that are due and apply them; return a report for each view.

        Memory does not grow with the number of rows. The next run completes a run that was stopped at any point.

        Args:
            check: the gate for new rows: called with a view and a Parquet file before the rows are accepted. It must
                ignore rows with a reason in ``__reject``, and raises to reject the file.
            events: accept only rows with event times in this range: a backfill.
            naive_is_utc: accept times without a zone, as Feast does.

        Raises:
            GateError: the gate or ``strict`` rejected a view's new rows; the other views are up to date.
            SourceError: a view's source is missing or broken; the other views are up to date.
            ConflictError: another run has the lease by now, and continues this run.
        """
        with Leases(self.state.database).hold("materialize") as lease, leave_memory(self.connection):
            job = _RunJob(
                parent=self, lease=lease, check=check, events=events, naive_is_utc=naive_is_utc, on_step=on_step
            )
            reports: list[ViewReport] = []
            errors: list[GateError | SourceError] = []
            try:
                for view in views:
                    try:
                        reports.append(job.view(view))
                    except (GateError, SourceError) as error:
                        if self.needed is None or not self.needed.is_only_pinned(view):
                            errors.append(error)
                            continue
                        reports.append(ViewReport(view=self.label(view), problem=str(error)))
                        _log.warning("view_update_failed", view=self.label(view), error=str(error))
            except StoreError:
                job.withdraw()
                raise
            job.finish()
        if errors:
            raise errors[0]
        return reports

    def label(self, view: View) -> str:
        """Return the name of a view's version for reports."""
        return view.name if self.needed is None else self.needed.label(view)

    def pending(self, views: Sequence[View]) -> list[Pending]:
        """Return the rows that a run would accept now; changes nothing."""
        reports = []
        for view in views:
            changes, _ = self.changes(view, self.clock.now_us())
            accepted, rejected, entities = changes.count(self.connection)
            reports.append(Pending(view=self.label(view), accepted=accepted, rejected=rejected, entities=entities))
        return reports

    def changes(
        self, view: View, now_us: int, events: EventRange | None = None, *, naive_is_utc: bool = False
    ) -> tuple[NewRows, dict[str, str]]:
        """Return the published rows of a view that are not in the log, and the fingerprints of the source's files."""
        table = view_table(self.repo, view)
        # Taken before the rows are read: if a file changes in between, the next run reads it again.
        fingerprints = table.fingerprints()
        if events is None:
            shares = self._list_slices(view, table, fingerprints, now_us)
        else:
            window = Window(after_us=None, upto_us=now_us, events=events)
            shares = [SourceSlice(table=table, window=window, log_files=self.log(view).files())]
        return NewRows(view=view, slices=shares, naive_is_utc=naive_is_utc), fingerprints

    def _list_slices(self, view: View, table: Table, fingerprints: Mapping[str, str], now_us: int) -> list[SourceSlice]:
        """Return all rows of new or changed files, and newly published rows of the other files."""
        progress, log = self.progress(view), self.log(view)
        all_rows = Window(after_us=None, upto_us=now_us)
        if progress is None:
            return [SourceSlice(table=table, window=all_rows, log_files=log.files())]
        since = Window(after_us=progress.upto_us, upto_us=now_us)
        changed_files, unchanged_files = table.split(
            [file for file in fingerprints if progress.files.get(file) != fingerprints[file]]
        )
        shares = [(changed_files, all_rows, 0), (unchanged_files, since, progress.next_seq)]
        return [SourceSlice(table=part, window=span, log_files=log.files(at)) for part, span, at in shares if part]

    def log(self, view: View) -> PartitionLog:
        """Return the accepted log of a view."""
        return PartitionLog(self.state, view.partition)

    def progress(self, view: View) -> Progress | None:
        """Return the progress in the source of a view; None if it is unknown or belongs to another log."""
        progress = Progress.read(self.state, view)
        return progress if progress is not None and progress.next_seq <= self.log(view).next_seq() else None

    def is_read(self, view: View, now_us: int) -> bool:
        """Return whether all due rows of a view's source have been read.

        Raises:
            SourceError: the source is missing.
        """
        progress = self.progress(view)
        if progress is None or progress.upto_us > now_us:
            return False
        due = progress.next_due_us is not None and progress.next_due_us <= now_us
        return not due and progress.files == view_table(self.repo, view).fingerprints()

    def save_progress(self, view: View, progress: Progress) -> None:
        """Record the progress in the source of a view."""
        progress.write(self.state, view)


@dataclass(kw_only=True)
class _RunJob:
    """One run; it is recorded in the ledger only if there is something to do."""

    parent: Materializer
    lease: Lease
    check: Check | None
    events: EventRange | None
    naive_is_utc: bool
    on_step: OnStep | None
    run: int | None = None
    covers: dict[str, Coverage] = field(default_factory=dict)
    has_written: bool = False  # whether this run has written rows to the log or the store

    def __post_init__(self) -> None:
        self.leases = Leases(self.parent.state.database)
        self.now_us = self.parent.clock.now_us()

    def view(self, view: View) -> ViewReport:
        backfills = Documents(self.parent.state.database, BACKFILLS)
        if is_backfill := backfills.get(view.partition) is not None:
            self.leases.check(self.lease)
            self.parent.online().delete(f"sk:{self.parent.project}:{view.hash}:")
        self._check_log(view)
        error: GateError | SourceError | None = None
        try:
            accepted, rejected, skipped = self._accept(view)
        except (GateError, SourceError) as raised:
            error = raised
        # Rows that are already in the log are served even if the source failed.
        applied, written = self._apply(view, accepted=error is None)
        if is_backfill:
            backfills.delete(view.partition)
        if error is not None:
            raise error
        label = self.parent.label(view)
        return ViewReport(
            view=label, accepted=accepted, rejected=rejected, applied=applied, written=written, left_out=skipped
        )

    def finish(self) -> None:
        if self.run is not None and (self.has_written or self.covers):
            self.parent.ledger.finish(self.run, self.covers, self.parent.clock.now_us(), self.lease)
        else:
            self.withdraw()

    def withdraw(self) -> None:
        """Remove the run from the ledger if it failed before it wrote any row."""
        if self.run is not None and not self.has_written:
            self.parent.ledger.withdraw(self.run, self.lease)

    def _begin(self) -> int:
        if self.run is None:
            skew_us = abs(self.parent.online().clock_offset_us())
            self.run = self.parent.ledger.start(self.parent.clock.now_us(), skew_us, self.lease)
        return self.run

    def _accept(self, view: View) -> tuple[int, int, Mapping[str, int]]:
        """Return the numbers of accepted and rejected rows, and of skipped rows by reason."""
        parent, progress = self.parent, self.parent.progress(view)
        if progress is not None and parent.is_read(view, self.now_us):
            reject_skipped(parent.label(view), self._select_refused({}, progress.waiting))
            return 0, 0, progress.waiting
        changes, files = parent.changes(view, self.now_us, self.events, naive_is_utc=self.naive_is_utc)
        # If the clock was set back, old rows must not look new again.
        upto_us = max(self.now_us, progress.upto_us if progress else self.now_us)
        log = parent.log(view)
        with log.stage_rows() as staged:
            # From here on, the log rejects the rows if another run has appended any.
            self.leases.check(self.lease)
            counts = self._stage(staged, changes)
            rejected = counts.refused
            pending = read_pending(parent.connection, view, view_table(parent.repo, view), upto_us, self.events)
            self._record_skipped(view, rejected, pending.rows)
            if counts.accepted and self.check is not None:
                staged.close()
                self.check(view, staged.path)
            if staged.rows:
                # A commit that fails after the link has still written rows.
                tail = log.next_seq()
                try:
                    log.commit_rows(staged, lambda: self.leases.check(self.lease))
                finally:
                    self.has_written |= log.next_seq() > tail
                DailyCounts(parent.state.database).add(view.partition, self.now_us, counts)
        if self.events is None:
            # After the commit: a run that is stopped before it reads the same files again.
            end, due_us = log.next_seq(), pending.next_us
            progress = Progress(files=files, upto_us=upto_us, next_seq=end, waiting=pending.rows, next_due_us=due_us)
            parent.save_progress(view, progress)
        return counts.accepted, counts.rejected, {**rejected, **pending.rows}

    def _record_skipped(self, view: View, rejected: Mapping[str, int], pending: Mapping[str, int]) -> None:
        """Record the number of skipped rows by reason; with ``strict``, raise if there are any."""
        refused = self._select_refused(rejected, pending)
        save_skipped(self.parent.state, view.name, view.hash, "materialize", {**refused, **pending}, self.now_us)
        reject_skipped(self.parent.label(view), refused)

    def _select_refused(self, rejected: Mapping[str, int], pending: Mapping[str, int]) -> Mapping[str, int]:
        overdue = {reason: rows for reason, rows in pending.items() if reason not in ORDINARY}
        return {**rejected, **overdue} if self.parent.strict else {}

    def _stage(self, staged: StagedRows, changes: NewRows) -> RowCounts:
        """Stage the due rows; return their counts."""
        counts, partition = RowCounts(), changes.view.partition
        for rows in changes.batches(self.parent.connection, _BATCH_ROWS):
            counts.add_refused(rows[REJECT], partition, staged.first + staged.rows)
            staged.write(self._add_run(rows))
            self._report_step(changes.view, "accepting", staged.rows, None)
        counts.accepted = staged.rows - counts.rejected
        return counts

    def _add_run(self, rows: pa.Table) -> pa.Table:
        n, run = rows.num_rows, self._begin()
        ingest, run_id = (int64_array(np.full(n, number, dtype=np.int64)) for number in (self.now_us, run))
        return rows.append_column(INGEST, ingest).append_column(RUN, run_id)

    def _check_log(self, view: View) -> None:
        applied_seq = self.parent.online().marker(marker_key(self.parent.project, view))
        if applied_seq is not None and applied_seq >= self.parent.log(view).next_seq():
            raise StoreError(
                f"view {view.name!r}",
                "is ahead of the log, so this online store was filled from another log",
                value=applied_seq,
                fix="run `skewless recover`, or point SKEWLESS_REDIS_URL at an empty store",
            )

    def _apply(self, view: View, *, accepted: bool) -> tuple[int, int]:
        parent, name = self.parent, marker_key(self.parent.project, view)
        tail = parent.log(view).next_seq() - 1
        applied_seq = parent.online().marker(name)
        covered = parent.ledger.last_position(view.partition)
        # The first run of a view is its bootstrap even without rows: later rows arrived live.
        has_run, last_covered_position = covered is not None, -1 if covered is None else covered
        reached, first = (LOST, -1) if applied_seq is None else (applied_seq, applied_seq)
        if tail > last_covered_position or tail > first or applied_seq is None or not has_run:
            self._begin()
        self.has_written |= tail > first or applied_seq is None
        if applied_seq is None:
            # Before the rows: it ends a deletion of them, and if it is gone after them, they were deleted.
            parent.online().set_markers({name: Marker(LOST)})
        counts = self._put(view, first + 1, tail - first) if tail > first else (0, 0)
        self.leases.check(self.lease)
        # If the source could be read, all rows that were published before the run are online now.
        parent.online().set_markers({name: Marker(tail, self.now_us if accepted else 0)}, {name: reached})
        if tail > last_covered_position or not has_run:
            kind: Kind = "live" if has_run and self.events is None else "bootstrap"
            self.covers[view.partition] = Coverage(first=last_covered_position + 1, last=tail, kind=kind)
        return counts

    def _put(self, view: View, first: int, total: int) -> tuple[int, int]:
        parent, done = self.parent, 0

        def on_rows(rows: int) -> None:
            nonlocal done
            done += rows
            self._report_step(view, "applying", done, total)

        latest_rows = LatestRows(project=parent.project, view=view, log=parent.log(view), connection=parent.connection)
        return parent.write(latest_rows, parent.online(), first, on_rows)

    def _report_step(self, view: View, doing: Literal["accepting", "applying"], done: int, total: int | None) -> None:
        if self.on_step is not None:
            self.on_step(RunStep(view=self.parent.label(view), doing=doing, done=done, total=total))
