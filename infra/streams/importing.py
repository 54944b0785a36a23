"""Imports history: files of events from before the stream, appended to the log as their own partitions (SEMANTICS 4.4).

Each file is one partition and is recognized by its rows. So a moved, copied or rewritten file has no new rows, and a
grown file continues after its old rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import duckdb

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.generations import Generations
from skewless.infra.log.partitions import log_partitions
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.streams.history_file import history_files
from skewless.infra.streams.idle_partitions import IdlePartitions
from skewless.infra.streams.import_run import ImportedFile, ImportRun, OnRows, import_prefix
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.state_writer import StateWriter

States = Literal["none", "applied", "behind"]


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """The result of importing the history of a source.

    Args:
        source: name of the event source.
        files: number of files with new rows.
        accepted, rejected, duplicates, present: sums over all files.
        states: whether online states include the events: states do not exist yet; all events have been applied; or some
            wait for a worker, because the store is unavailable.
        by_file: the result of each file.
    """

    source: str
    files: int
    accepted: int
    rejected: int
    duplicates: int
    present: int
    states: States
    by_file: tuple[ImportedFile, ...] = field(repr=False)

    def as_dict(self) -> dict[str, object]:
        """Return plain values, without the results of each file."""
        return {name: value for name, value in asdict(self).items() if name != "by_file"}


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Appends the history of one source to its log; the next run continues a stopped one.

    Args:
        source: of the events.
        views: the windowed views of the source; an event that one of them cannot sum exactly is rejected.
        repo: paths are relative to it.
        state: of the project.
        generations: of the views.
        open_writer: opens the state writer; called only if there are states.
        connection: to DuckDB.
        clock: of the project.
        dry_run: report the result without changing anything.
    """

    source: EventSource
    views: list[WindowView]
    repo: Path
    state: ProjectState
    generations: Generations
    open_writer: Callable[[], AbstractContextManager[StateWriter]]
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    dry_run: bool = False

    def run(self, on_rows: OnRows = lambda _file, _done: None) -> ImportResult:
        """Append new rows and apply them to states.

        Raises:
            SourceError: the history is missing, an imported file has changed, or a file lacks a column.
            StoreError: the disk failed.
            ConflictError: another process imports the same source.
        """
        with (
            nullcontext()
            if self.dry_run
            else Leases(self.state.database).try_hold(f"import {self.source.name}") as lease
        ):
            if lease is None and not self.dry_run:
                raise ConflictError(
                    f"history of event source {self.source.name!r}",
                    "is being imported by another process",
                    fix="wait until it ends, then run it again",
                )
            run = ImportRun(
                source=self.source,
                views=self.views,
                state=self.state,
                generations=self.generations,
                lease=lease,
                clock=self.clock,
                on_rows=on_rows,
            )
            files = tuple(run.import_file(file) for file in history_files(self.source, self.repo, self.connection))
        return ImportResult(
            source=self.source.name,
            files=sum(file.is_new for file in files),
            accepted=sum(file.accepted for file in files),
            rejected=sum(file.rejected for file in files),
            duplicates=sum(file.duplicates for file in files),
            present=sum(file.present for file in files),
            states="none" if self.dry_run else self._apply(),
            by_file=files,
        )

    def _apply(self) -> States:
        """Apply all import partitions to the states."""
        if not any(self.generations.list_written(view) for view in self.views):
            return "none"
        names = [
            name
            for name in log_partitions(self.state, self.source.name)
            if name.startswith(f"{import_prefix(self.source)}/")
        ]
        try:
            with self.open_writer() as writer:
                idle_partitions = IdlePartitions(writer, self.state, self.source.name)
                idle_partitions.catch_up(names, SourceCounts(source=self.source.name))
        except StoreError:
            # The events are in the log, and a worker will apply them.
            return "behind"
        return "applied"
