"""Materialisation: source rows -> accepted log -> newest row of each entity in the online store.

Every step can be repeated. Accepting compares with the log; applying starts after the store's own marker and is
newer-wins; the run's end is recorded last. A crash anywhere is made good by the next run (SEMANTICS 1.4, 2.3, 2.6).
"""

from __future__ import annotations

import fcntl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from skewless.contract.clock import Clock
from skewless.contract.errors import GateError, SourceError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plan import View
from skewless.infra.log.accepted import INGEST, REJECT, RUN, AcceptedLog, StagedRows
from skewless.infra.log.runs import Coverage, Kind, MaterializationRun, RunLedger, last_covered
from skewless.infra.materialization.latest_rows import LatestRows
from skewless.infra.materialization.read_progress import Progress
from skewless.infra.materialization.run_report import OnStep, Pending, RunStep, ViewReport
from skewless.infra.materialization.skipped_rows import refuse_left_out, save_left_out
from skewless.infra.offline.changes import ORDINARY, Changes, EventRange, PendingRows, SourceSlice, Window, waiting_rows
from skewless.infra.offline.sources import Table, view_table
from skewless.infra.online.port import Marker, OnlineWriter
from skewless.infra.plans.needed_views import NeededViews
from skewless.infra.storage.durable import make_folder

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 100_000
_log = structlog.get_logger()

Check = Callable[[View, Path], None]


@dataclass(frozen=True, kw_only=True)
class Materializer:
    """Materialises the views of one project.

    Args:
        repo: the user's folder.
        state: the project's state folder.
        online: returns where rows are applied; called by runs alone.
        needed: what has to be fed. A version that only models read and that cannot be fed is reported, no error.
        strict: refuse the new rows of a view if one of them is left out for another reason than that it is not due.
    """

    project: str
    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection
    online: Callable[[], OnlineWriter]
    ledger: RunLedger
    clock: Clock
    needed: NeededViews | None = None
    strict: bool = False

    def run(
        self,
        views: Sequence[View],
        check: Check | None = None,
        *,
        events: EventRange | None = None,
        naive_is_utc: bool = False,
        on_step: OnStep | None = None,
    ) -> list[ViewReport]:
        """Accept what is due and apply it; return what was done for each view.

        Memory does not grow with the rows. A run that is stopped anywhere is completed by the next.

        Args:
            check: the gate that new rows must pass before they are accepted: it is given a Parquet file, whose
                rows with a reason in ``__reject`` are none of its business, and raises to refuse.
            events: accept only rows of these event times: a backfill.
            naive_is_utc: accept times without a zone, as Feast does.

        Raises:
            GateError: a view's new rows were refused, by the gate or because ``strict`` is set; the other views are
                up to date.
            SourceError: a view's source is away or broken; the other views are up to date.
        """
        with self._exclusive():
            job = _RunJob(self, check, events, naive_is_utc=naive_is_utc, on_step=on_step)
            reports: list[ViewReport] = []
            refused: list[GateError | SourceError] = []
            try:
                for view in views:
                    try:
                        reports.append(job.view(view))
                    except (GateError, SourceError) as error:
                        if self.needed is None or not self.needed.only_pinned(view):
                            refused.append(error)
                            continue
                        reports.append(ViewReport.unfed(self.label(view), error))
                        _log.warning("view_not_fed", view=self.label(view), error=str(error))
            except StoreError:
                job.withdraw()
                raise
            job.finish()
        if refused:
            raise refused[0]
        return reports

    def label(self, view: View) -> str:
        """Return how reports call a version of a view."""
        return view.name if self.needed is None else self.needed.label(view)

    def pending(self, views: Sequence[View]) -> list[Pending]:
        """Return what a run would accept now; nothing is changed."""
        found = []
        for view in views:
            changes, _ = self.changes(view, self.clock.now_us())
            accepted, rejected, entities = changes.count(self.connection)
            found.append(Pending(view=self.label(view), accepted=accepted, rejected=rejected, entities=entities))
        return found

    def changes(
        self, view: View, now_us: int, events: EventRange | None = None, *, naive_is_utc: bool = False
    ) -> tuple[Changes, dict[str, str]]:
        """Return which rows of a view are published and not yet in the log, and the fingerprints of their files."""
        table = view_table(self.repo, view)
        # Taken before the rows are read: a source that changes meanwhile is read again by the next run.
        prints = table.fingerprints()
        if events is None:
            shares = self._shares(view, table, prints, now_us)
        else:
            window = Window(after_us=None, upto_us=now_us, events=events)
            shares = [SourceSlice(table=table, window=window, log_files=self.log(view).files())]
        return Changes(view=view, shares=shares, naive_is_utc=naive_is_utc), prints

    def _shares(self, view: View, table: Table, prints: Mapping[str, str], now_us: int) -> list[SourceSlice]:
        """Return every row of the files that are new or changed, and of the others what was published since."""
        progress, log = self.progress(view), self.log(view)
        everything = Window(after_us=None, upto_us=now_us)
        if progress is None:
            return [SourceSlice(table=table, window=everything, log_files=log.files())]
        since = Window(after_us=progress.upto_us, upto_us=now_us)
        changed, same = table.split([file for file in prints if progress.files.get(file) != prints[file]])
        shares = [(changed, everything, 0), (same, since, progress.next_seq)]
        return [SourceSlice(table=part, window=span, log_files=log.files(at)) for part, span, at in shares if part]

    def log(self, view: View) -> AcceptedLog:
        """Return the log of a view's batch rows."""
        return AcceptedLog(self.state / "log", view.partition)

    def progress(self, view: View) -> Progress | None:
        """Return how far the source of a view has been read; None where that is unknown, or not of this log."""
        progress = Progress.read(self._progress_path(view))
        return progress if progress is not None and progress.next_seq <= self.log(view).next_seq() else None

    def is_read(self, view: View, now_us: int) -> bool:
        """Say whether the source of a view holds nothing that is due and was not read.

        Raises:
            SourceError: the source is away.
        """
        progress = self.progress(view)
        if progress is None or progress.upto_us > now_us:
            return False
        due = progress.next_due_us is not None and progress.next_due_us <= now_us
        return not due and progress.files == view_table(self.repo, view).fingerprints()

    def save_progress(self, view: View, progress: Progress) -> None:
        """Record how far the source of a view has been read."""
        progress.write(self._progress_path(view))

    def _progress_path(self, view: View) -> Path:
        return self.state / "progress" / f"{view.name}-{view.hash}.json"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        make_folder(self.state)
        with (self.state / "materialize.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _RunJob:
    """One run: begins in the ledger only if there is something to do."""

    def __init__(
        self,
        parent: Materializer,
        check: Check | None,
        events: EventRange | None,
        *,
        naive_is_utc: bool,
        on_step: OnStep | None,
    ) -> None:
        self._parent = parent
        self._check = check
        self._events = events
        self._naive_is_utc = naive_is_utc
        self._on_step = on_step
        self._now_us = parent.clock.now_us()
        self._run: MaterializationRun | None = None
        self._covers: dict[str, Coverage] = {}
        self._left = False  # whether this run left rows in the log or in the store

    def view(self, view: View) -> ViewReport:
        self._refuse_foreign_log(view)
        try:
            accepted, rejected, left_out = self._accept(view)
        except (GateError, SourceError):
            # What the log holds is served, whatever became of its source.
            self._apply(view, accepted=False)
            raise
        applied, written = self._apply(view, accepted=True)
        label = self._parent.label(view)
        return ViewReport(
            view=label, accepted=accepted, rejected=rejected, applied=applied, written=written, left_out=left_out
        )

    def finish(self) -> None:
        if self._run is None:
            return
        if not self._left and not self._covers:
            self.withdraw()
        else:
            self._parent.ledger.finish(self._run, self._covers, self._parent.clock.now_us())

    def withdraw(self) -> None:
        """Forget a run that failed before it left a row anywhere."""
        if self._run is not None and not self._left:
            self._parent.ledger.withdraw(self._run)

    def _begin(self) -> MaterializationRun:
        if self._run is None:
            skew_us = abs(self._parent.online().clock_offset_us())
            self._run = self._parent.ledger.start(self._parent.clock.now_us(), skew_us)
        return self._run

    def _accept(self, view: View) -> tuple[int, int, Mapping[str, int]]:
        """Return how many rows were accepted and rejected, and how many are left out, by reason."""
        parent, before = self._parent, self._parent.progress(view)
        if before is not None and parent.is_read(view, self._now_us):
            refuse_left_out(parent.label(view), self._refused({}, before.waiting))
            return 0, 0, before.waiting
        changes, files = parent.changes(view, self._now_us, self._events, naive_is_utc=self._naive_is_utc)
        # A clock that went back must not make rows look new again.
        upto_us = max(self._now_us, before.upto_us if before else self._now_us)
        log = parent.log(view)
        log.sweep()
        with log.draft() as draft:
            rejected = self._write(draft, changes)
            waiting = waiting_rows(parent.connection, view, view_table(parent.repo, view), upto_us, self._events)
            self._leave_out(view, rejected, waiting.rows)
            n = sum(rejected.values())
            if draft.rows > n and self._check is not None:
                draft.close()
                self._check(view, draft.path)
            if draft.rows:
                tail = log.next_seq()
                try:
                    log.adopt(draft)
                finally:
                    self._left |= log.next_seq() > tail
        if self._events is None:
            self._save_progress(view, files, upto_us, waiting)
        return draft.rows - n, n, {**rejected, **waiting.rows}

    def _leave_out(self, view: View, rejected: Mapping[str, int], waiting: Mapping[str, int]) -> None:
        """Keep how many rows are left out; what is rejected stands in the log, unless that is not allowed."""
        refused = self._refused(rejected, waiting)
        reasons = {**refused, **waiting}
        save_left_out(self._parent.state, view.name, view.hash, "materialize", reasons, self._now_us)
        refuse_left_out(self._parent.label(view), refused)

    def _refused(self, rejected: Mapping[str, int], waiting: Mapping[str, int]) -> Mapping[str, int]:
        late = {reason: rows for reason, rows in waiting.items() if reason not in ORDINARY}
        return {**rejected, **late} if self._parent.strict else {}

    def _write(self, draft: StagedRows, changes: Changes) -> dict[str, int]:
        """Write what is due to a draft; return how many of its rows are rejected, by reason."""
        rejected: Counter[str] = Counter()
        for rows in changes.batches(self._parent.connection, _BATCH_ROWS):
            if rows[REJECT].null_count < rows.num_rows:
                counted = pc.value_counts(rows[REJECT].drop_null()).to_pylist()
                rejected.update({item["values"]: item["counts"] for item in counted})
            draft.write(self._stamped(rows))
            self._tell(changes.view, "accepting", draft.rows, None)
        return dict(rejected)

    def _stamped(self, rows: pa.Table) -> pa.Table:
        n, run = rows.num_rows, self._begin()
        ingest = pa.array(np.full(n, self._now_us, dtype=np.int64))
        return rows.append_column(INGEST, ingest).append_column(RUN, pa.array(np.full(n, run.run_id, dtype=np.int64)))

    def _save_progress(self, view: View, files: Mapping[str, str], upto_us: int, waiting: PendingRows) -> None:
        next_seq = self._parent.log(view).next_seq()
        due_us = waiting.next_us
        progress = Progress(files=files, upto_us=upto_us, next_seq=next_seq, waiting=waiting.rows, next_due_us=due_us)
        self._parent.save_progress(view, progress)

    def _refuse_foreign_log(self, view: View) -> None:
        applied_seq = self._parent.online().marker(marker_key(self._parent.project, view))
        if applied_seq is not None and applied_seq >= self._parent.log(view).next_seq():
            raise StoreError(
                f"view {view.name!r}",
                "is ahead of the log in this online store, so the log is not the one it was filled from",
                value=applied_seq,
                fix="restore the state folder, or point SKEWLESS_REDIS_URL at an empty store",
            )

    def _apply(self, view: View, *, accepted: bool) -> tuple[int, int]:
        parent = self._parent
        tail = parent.log(view).next_seq() - 1
        name = marker_key(parent.project, view)
        applied_seq = parent.online().marker(name)
        runs = parent.ledger.runs()
        covered = last_covered(runs, view.partition)
        # The first run of a view is its bootstrap even if it found no row: what comes later comes live.
        seen = any(view.partition in run.covers for run in runs)
        first = -1 if applied_seq is None else applied_seq
        if tail > covered or tail > first or applied_seq is None or not seen:
            self._begin()
        self._left |= tail > first or applied_seq is None
        counts = self._put(view, first + 1, tail - first) if tail > first else (0, 0)
        # What was published by the beginning of the run is online now, where its source could be read.
        parent.online().set_markers({name: Marker(tail, self._now_us if accepted else 0)})
        if tail > covered or not seen:
            kind: Kind = "live" if seen and self._events is None else "bootstrap"
            self._covers[view.partition] = Coverage(first=covered + 1, last=tail, kind=kind)
        return counts

    def _put(self, view: View, first: int, total: int) -> tuple[int, int]:
        parent, done = self._parent, 0

        def passed(rows: int) -> None:
            nonlocal done
            done += rows
            self._tell(view, "applying", done, total)

        newest = LatestRows(project=parent.project, view=view, log=parent.log(view), connection=parent.connection)
        return newest.put(parent.online(), first, passed)

    def _tell(self, view: View, doing: Literal["accepting", "applying"], done: int, total: int | None) -> None:
        if self._on_step is not None:
            self._on_step(RunStep(view=self._parent.label(view), doing=doing, done=done, total=total))
