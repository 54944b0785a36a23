"""Events from before the stream: files of history appended to the log as partitions of their own (SEMANTICS 4.4).

Each file is one partition, known by its rows: a file that was moved, copied or written again has nothing new, one that
grew is read on from where it grew.
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
from skewless.infra.log.partitions import log_partitions, source_folder
from skewless.infra.storage.durable import try_lock
from skewless.infra.streams.history_file import history_files
from skewless.infra.streams.idle_partitions import IdlePartitions
from skewless.infra.streams.import_run import ImportedFile, ImportRun, OnRows, import_prefix
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.state_writer import StateWriter

States = Literal["none", "applied", "behind"]


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What became of the history of a source.

    Args:
        files: how many files were new or went on.
        accepted, rejected, duplicates, present: as of one file, of all.
        states: whether online states have the events: there are none yet; all have been applied; or some wait for a
            worker, since the store is away.
        by_file: the same of each file.
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
        """Return plain values, without those of each file."""
        return {name: value for name, value in asdict(self).items() if name != "by_file"}


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Appends the history of one source to its log; a run that was stopped is gone on with by the next.

    Args:
        repo: what paths are relative to.
        views: the windowed views of the source: an event that one of them could not sum exactly is refused.
        open_writer: lends what applies events to states; called where there are some.
        dry_run: change nothing, and say what would be done.
    """

    source: EventSource
    views: list[WindowView]
    repo: Path
    log_root: Path
    generations: Generations
    open_writer: Callable[[], AbstractContextManager[StateWriter]]
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    dry_run: bool = False

    def run(self, on_rows: OnRows = lambda _file, _done: None) -> ImportResult:
        """Append what is not there yet, and bring states up to it.

        Raises:
            SourceError: there is no history, a file has changed since it was taken in, or lacks a column.
            StoreError: the disk refused.
            ConflictError: another process imports the same source.
        """
        with nullcontext(enter_result=True) if self.dry_run else try_lock(self._folder, "import.lock") as is_alone:
            if not is_alone:
                raise ConflictError(
                    f"history of event source {self.source.name!r}",
                    "is being imported by another process",
                    fix="wait until it ends, then run it again",
                )
            run = ImportRun(
                source=self.source,
                views=self.views,
                log_root=self.log_root,
                generations=self.generations,
                clock=self.clock,
                dry_run=self.dry_run,
                on_rows=on_rows,
            )
            files = tuple(run.take(file) for file in history_files(self.source, self.repo, self.connection))
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
        """Bring states up to the end of all import partitions."""
        if not any(self.generations.written(view) for view in self.views):
            return "none"
        names = [
            name
            for name in log_partitions(self.log_root, self.source.name)
            if name.startswith(f"{import_prefix(self.source)}/")
        ]
        try:
            with self.open_writer() as writer:
                resting = IdlePartitions(writer, self.log_root, self.source.name)
                resting.catch_up(names, SourceCounts(source=self.source.name))
        except StoreError:
            return "behind"
        return "applied"

    @property
    def _folder(self) -> Path:
        return source_folder(self.log_root, self.source.name)
