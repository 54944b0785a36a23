"""Materialisation: source rows -> accepted log -> newest row of each entity in the online store.

Every step can be repeated. Accepting compares with the log; applying starts after the store's own
marker and is newer-wins; the run's end is recorded last. A crash anywhere is made good by the next
run (SEMANTICS 1.4, 2.3, 2.6).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.log.accepted import INGEST, REJECT, RUN, AcceptedLog
from infra.log.known import last_covered
from infra.log.runs import Coverage, Kind, Run, RunLedger
from infra.offline import arrays
from infra.offline.changes import Window, new_rows, next_due
from infra.offline.join import winners
from infra.offline.sources import Table, find_table
from infra.online.port import OnlineWriter
from skewless.clock import Clock
from skewless.errors import GateError, SourceError, StoreError
from skewless.keys import KeyCodec, marker_key
from skewless.plan import View
from skewless.rows import RowCodec

_BATCH_ROWS = 50_000

Check = Callable[[View, pa.Table], None]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the source of a view has been read; a hint, checked against the log.

    Args:
        fingerprint: identity of the source's files.
        upto_us: publication time up to which they were read.
        next_seq: end of the log at that moment.
        next_due_us: publication of the next row that the same files hold, if any.
    """

    fingerprint: str
    upto_us: int
    next_seq: int
    next_due_us: int | None


@dataclass(frozen=True, kw_only=True)
class ViewReport:
    """What a run did for one view, in rows."""

    view: str
    accepted: int
    rejected: int
    applied: int
    written: int


@dataclass(frozen=True, kw_only=True)
class Materializer:
    """Materialises the views of one project.

    Args:
        repo: the user's folder.
        state: the project's state folder.
        online: where rows are applied.
    """

    project: str
    repo: Path
    state: Path
    connection: duckdb.DuckDBPyConnection
    online: OnlineWriter
    ledger: RunLedger
    clock: Clock

    def run(self, views: Sequence[View], check: Check | None = None) -> list[ViewReport]:
        """Accept what is due and apply it; return what was done for each view.

        Args:
            views: the views to bring up to date.
            check: the gate that new rows must pass before they are accepted; raises to refuse.

        Raises:
            GateError: a view's new rows were refused; the other views are up to date.
            SourceError: a view's source is away or broken; the other views are up to date.
        """
        with self._exclusive():
            job = _Job(self, check)
            reports: list[ViewReport] = []
            refused: list[GateError | SourceError] = []
            for view in views:
                try:
                    reports.append(job.view(view))
                except (GateError, SourceError) as error:
                    refused.append(error)
            job.finish()
        if refused:
            raise refused[0]
        return reports

    def pending(self, views: Sequence[View]) -> dict[str, pa.Table]:
        """Return the rows that a run would accept now, by view; nothing is changed."""
        return {view.name: self.due_rows(view, self.clock.now_us())[0] for view in views}

    def due_rows(self, view: View, now_us: int) -> tuple[pa.Table, Table, str]:
        """Return the rows of a view that are published and not yet in the log, their source and its fingerprint."""
        table = find_table(self.repo, view.source.path, f"source of view {view.name!r}")
        # Taken before the rows are read: a source that changes meanwhile is read again by the next run.
        fingerprint = table.fingerprint()
        progress = self.progress(view)
        log = self.log(view)
        if progress is None or progress.fingerprint != fingerprint:
            window, first = Window(after_us=None, upto_us=now_us), 0
        else:
            window, first = Window(after_us=progress.upto_us, upto_us=now_us), progress.next_seq
        return new_rows(self.connection, view, table, window, log.files(first)), table, fingerprint

    def log(self, view: View) -> AcceptedLog:
        """Return the log of a view's batch rows."""
        return AcceptedLog(self.state / "log", view.partition)

    def progress(self, view: View) -> Progress | None:
        """Return how far the source of a view has been read; None where that is unknown, or not of this log."""
        try:
            progress = Progress(**json.loads(self._progress_path(view).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return progress if progress.next_seq <= self.log(view).next_seq() else None

    def save_progress(self, view: View, progress: Progress) -> None:
        """Record how far the source of a view has been read."""
        path = self._progress_path(view)
        temporary = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(progress)))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"file {path}", f"cannot be written: {error}", fix="free disk space or rights, then run again"
            ) from error

    def _progress_path(self, view: View) -> Path:
        return self.state / "progress" / f"{view.name}-{view.hash}.json"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "materialize.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _Job:
    """One run: begins in the ledger only if there is something to do."""

    def __init__(self, parent: Materializer, check: Check | None) -> None:
        self._parent = parent
        self._check = check
        self._now_us = parent.clock.now_us()
        self._run: Run | None = None
        self._covers: dict[str, Coverage] = {}
        self._left = False  # whether this run left rows in the log or in the store

    def view(self, view: View) -> ViewReport:
        self._refuse_foreign_log(view)
        try:
            accepted, rejected = self._accept(view)
        except (GateError, SourceError):
            # What the log holds is served, whatever became of its source.
            self._apply(view)
            raise
        applied, written = self._apply(view)
        return ViewReport(view=view.name, accepted=accepted, rejected=rejected, applied=applied, written=written)

    def finish(self) -> None:
        if self._run is not None:
            self._parent.ledger.finish(self._run, self._covers, self._parent.clock.now_us())

    def _begin(self) -> Run:
        if self._run is None:
            skew_us = abs(self._parent.online.clock_offset_us())
            self._run = self._parent.ledger.start(self._parent.clock.now_us(), skew_us)
        return self._run

    def _accept(self, view: View) -> tuple[int, int]:
        parent = self._parent
        if self._idle(view):
            return 0, 0
        rows, table, fingerprint = parent.due_rows(view, self._now_us)
        log = parent.log(view)
        if rows.num_rows:
            good = rows.filter(pc.is_null(rows[REJECT]))
            if self._check is not None and good.num_rows:
                self._check(view, good)
            self._append(log, self._stamp(rows))
        before = parent.progress(view)
        # A clock that went back must not make rows look new again.
        upto = max(self._now_us, before.upto_us if before else self._now_us)
        due = next_due(parent.connection, view, table, upto)
        parent.save_progress(
            view,
            Progress(fingerprint=fingerprint, upto_us=upto, next_seq=log.next_seq(), next_due_us=due),
        )
        rejected = rows.num_rows - int(pc.sum(pc.is_null(rows[REJECT])).as_py() or 0)
        return rows.num_rows - rejected, rejected

    def _append(self, log: AcceptedLog, rows: pa.Table) -> None:
        tail = log.next_seq()
        try:
            log.append(rows)
        except StoreError:
            if self._run is not None and not self._left and log.next_seq() == tail:
                self._parent.ledger.withdraw(self._run)
            raise
        self._left = True

    def _refuse_foreign_log(self, view: View) -> None:
        applied_seq = self._parent.online.marker(marker_key(self._parent.project, view))
        if applied_seq is not None and applied_seq >= self._parent.log(view).next_seq():
            raise StoreError(
                f"view {view.name!r}",
                "is ahead of the log in this Redis, so the log is not the one it was filled from",
                value=applied_seq,
                fix="restore the state folder, or point SKEWLESS_REDIS_URL at an empty database",
            )

    def _idle(self, view: View) -> bool:
        progress = self._parent.progress(view)
        if progress is None or progress.upto_us > self._now_us:
            return False
        table = find_table(self._parent.repo, view.source.path, f"source of view {view.name!r}")
        due = progress.next_due_us is not None and progress.next_due_us <= self._now_us
        return not due and progress.fingerprint == table.fingerprint()

    def _stamp(self, rows: pa.Table) -> pa.Table:
        n = rows.num_rows
        ingest = pa.array(np.full(n, self._now_us, dtype=np.int64))
        run = pa.array(np.full(n, self._begin().run_id, dtype=np.int64))
        return rows.append_column(INGEST, ingest).append_column(RUN, run)

    def _apply(self, view: View) -> tuple[int, int]:
        parent = self._parent
        log = parent.log(view)
        tail = log.next_seq() - 1
        name = marker_key(parent.project, view)
        applied_seq = parent.online.marker(name)
        runs = parent.ledger.runs()
        covered = last_covered(runs, view.partition)
        # The first run of a view is its bootstrap even if it found no row: what comes later comes live.
        seen = any(view.partition in run.covers for run in runs)
        first = -1 if applied_seq is None else applied_seq
        if tail > covered or tail > first or applied_seq is None or not seen:
            self._begin()
        self._left |= tail > first or applied_seq is None
        counts = _write_winners(parent, view, log, first + 1) if tail > first else (0, 0)
        if applied_seq is None or tail > first:
            parent.online.set_marker(name, tail)
        if tail > covered or not seen:
            kind: Kind = "live" if seen else "bootstrap"
            self._covers[view.partition] = Coverage(first=covered + 1, last=tail, kind=kind)
        return counts


def _write_winners(parent: Materializer, view: View, log: AcceptedLog, first: int) -> tuple[int, int]:
    keys, codec = KeyCodec(parent.project, view), RowCodec(view)
    reader = parent.connection.sql(winners(view), params=[log.files(first), first]).to_arrow_reader(_BATCH_ROWS)
    applied = written = 0
    for batch in reader:
        names, rows = _packed(view, keys, codec, pa.Table.from_batches([batch]))
        applied += len(rows)
        written += parent.online.put(names, rows)
    return applied, written


def _packed(view: View, keys: KeyCodec, codec: RowCodec, table: pa.Table) -> tuple[list[bytes], list[bytes]]:
    read_values = {column.name: arrays.values(table[column.name], column.dtype) for column in view.features}
    read_nulls = {column.name: arrays.nulls(table[column.name]) for column in view.features}
    rows = codec.encode(arrays.versions(table), read_values, read_nulls)
    names = keys.encode_columns(arrays.keys(table, view.keys))
    kept = [(name, row) for name, row in zip(names, rows, strict=True) if name is not None]
    return [name for name, _ in kept], [row for _, row in kept]


def totals(reports: Sequence[ViewReport]) -> Mapping[str, int]:
    """Return the sums over all views."""
    return {
        name: sum(getattr(report, name) for report in reports)
        for name in ("accepted", "rejected", "applied", "written")
    }
