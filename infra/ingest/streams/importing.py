"""Imports history: files of events from before the stream, appended to the log as their own partitions (SEMANTICS 4.4).

Each file is one partition and is recognized by its rows. So a moved, copied or rewritten file has no new rows, and a
grown file continues after its old rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.arrow_types import arrow_type
from skewless.contract.errors import ConflictError, SourceError, StoreError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.ingest.streams.decode import EventValidator
from skewless.infra.ingest.streams.event_ids import EventIds
from skewless.infra.ingest.streams.history_file import (
    KNOWN,
    SEVERAL,
    HistoryFile,
    RowDigest,
    digest_rows,
    file_columns,
    history_files,
)
from skewless.infra.ingest.streams.import_records import FilePrefix, ImportRecord, ImportRecords
from skewless.infra.ingest.streams.partition_worker import IdlePartitions
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import IMPORTED, log_ends, log_partitions, source_logs
from skewless.infra.log.daily_counts import DailyCounts, RowCounts
from skewless.infra.log.log_columns import DECLARED, KNOWN_AT, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.reads.online.store import open_online_store

BATCH_ROWS = 100_000

States = Literal["none", "applied", "behind"]
OnRows = Callable[[str, int], None]


@dataclass(kw_only=True)
class ImportedFile:
    """The result of importing one file.

    Args:
        file: path of the file.
        accepted, rejected: rows that this run appended.
        duplicates: skipped rows whose event ids were already in the log or the file.
        present: rows that an earlier run had imported.
    """

    file: str
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    present: int = 0

    @property
    def is_new(self) -> bool:
        """Return whether this run imported any rows."""
        return bool(self.accepted or self.rejected or self.duplicates)


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
        streams: of the project; an event that a windowed view of the source cannot sum exactly is rejected.
        source: of the events.
        repo: paths are relative to it.
        dry_run: report the result without changing anything.
    """

    streams: Streams
    source: EventSource
    repo: Path
    dry_run: bool = False

    @cached_property
    def views(self) -> list[WindowView]:
        """The windowed views of the source."""
        return self.streams.views(self.source.name)

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
            else Leases(self.streams.state.database).try_hold(f"import {self.source.name}") as lease
        ):
            if lease is None and not self.dry_run:
                raise ConflictError(
                    f"history of event source {self.source.name!r}",
                    "is being imported by another process",
                    fix="wait until it ends, then run it again",
                )
            run = _ImportRun(self, lease, on_rows)
            files = tuple(map(run.import_file, history_files(self.source, self.repo, self.streams.connection)))
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
        if not any(self.streams.generations.list_written(view) for view in self.views):
            return "none"
        names = [name for name in log_partitions(self.streams.state, self.source.name) if IMPORTED in name]
        try:
            with closing(open_online_store(self.streams.redis_url)) as store:
                writer = self.streams.writer(self.source, store)
                idle_partitions = IdlePartitions(writer, self.streams.state, self.source.name)
                idle_partitions.catch_up(names, SourceCounts(source=self.source.name))
        except StoreError:
            # The events are in the log, and a worker will apply them.
            return "behind"
        return "applied"


class _ImportRun:
    """One run over the files of a source's history; the caller ensures that it runs alone."""

    def __init__(self, importer: Importer, lease: Lease | None, on_rows: OnRows) -> None:
        self._importer = importer
        self._source, self._state = importer.source, importer.streams.state
        self._on_rows = on_rows
        self._records = ImportRecords(self._state, self._source.name, lease)
        self._validator = EventValidator(self._source, importer.views)

    @cached_property
    def _ids(self) -> EventIds:
        # DuckDB compares with the ids that the log has now. Ids that are accepted later are loaded from here on.
        ends = log_ends(self._state, self._source.name)
        start_positions = {name: last + 1 for name, last in ends.items()}
        return EventIds(self._source, self._state, None, start_positions)

    def import_file(self, file: HistoryFile) -> ImportedFile:
        """Import the new rows of one file."""
        result = ImportedFile(file=file.name)
        fingerprint = file.table.fingerprint()
        record_before = self._records.find_by_name(file.name)
        if record_before is not None and record_before.files[file.name][0] == fingerprint:
            result.present = record_before.files[file.name][1]
            return result
        count = file.count()
        if not count:
            return result
        match = self._records.find_by_rows(file, count)
        if match is None:
            self._check_unchanged(file, record_before)
            match = self._begin_record(file)
        record, digest = match
        result.present = count if digest is None else digest.rows
        if digest is not None:
            record = self._append_rows(file, count, record, digest, result)
        self._records.add_file_name(record, file.name, fingerprint, count)
        return result

    def _check_unchanged(self, file: HistoryFile, record_before: ImportRecord | None) -> None:
        """Raise an error if an imported file has other rows now, unless event ids distinguish new from old rows."""
        column = self._source.id_column
        if record_before is None:
            return
        if column and any(item.name == column for item in record_before.columns) and not file.count_without_id(column):
            return
        raise SourceError(
            f"history of event source {self._source.name!r}",
            "has a file that was imported and has changed since" + (", with events that have no id" if column else ""),
            value=str(file.path),
            fix="move it away, since its events are in the log, and put new events in a new file"
            + ("" if column else "; or declare the tag skewless.event_id"),
        )

    def _begin_record(self, file: HistoryFile) -> tuple[ImportRecord, RowDigest | None]:
        columns = tuple(file_columns(self._source))
        digest = RowDigest(columns)
        record = ImportRecord(
            key=self._records.unused_key(file.name),
            columns=columns,
            head=digest_rows(columns, next(file.rows(columns, 1, last=0))),
            done=FilePrefix(rows=0, digest=digest.hexdigest()),
        )
        return record, digest

    def _append_rows(
        self, file: HistoryFile, count: int, record: ImportRecord, digest: RowDigest, result: ImportedFile
    ) -> ImportRecord:
        columns = tuple(file_columns(self._source))
        first = digest.rows
        if record.columns != columns:  # the definition of the source has changed since the first import
            digest = next(file.digests(columns, BATCH_ROWS, [first]))
            head = digest_rows(columns, next(file.rows(columns, 1, last=0)))
            record = replace(record, columns=columns, head=head)
        column, flags = self._source.id_column, None
        if column is not None:
            _ = self._ids  # loads the ends of the log before DuckDB compares with it
            flags = file.find_repeats(column, first, self._state)
        log, prefix = self._records.log(record.key), FilePrefix(rows=first, digest=digest.hexdigest())
        for rows in file.rows(columns, BATCH_ROWS, first, count - 1):  # rows added since the count are for the next run
            start = digest.rows
            digest.update(rows)
            record = replace(record, done=prefix, next=FilePrefix(rows=digest.rows, digest=digest.hexdigest()))
            # Durable before the append: after a kill, find_by_rows decides whether the log has the batch.
            self._records.save(record)
            self._append_batch(
                log, rows, start, None if flags is None else flags[start - first : digest.rows - first], result
            )
            prefix = record.next or prefix
            self._on_rows(file.path.name, digest.rows - first)
        if self._importer.dry_run:
            self._records.add_pending(record, file)
        return replace(record, done=prefix, next=None)

    def _append_batch(
        self, log: PartitionLog, rows: pa.Table, start: int, flags: npt.NDArray[np.uint8] | None, result: ImportedFile
    ) -> None:
        now_us = self._importer.streams.clock.now_us()
        validated, known_at = self._validate(rows, start, now_us)
        skip_remembering = None
        if flags is not None:
            rejected = validated[REJECT].is_valid().to_numpy()
            # A rejected row stays, because a message in quarantine does not use its id (SEMANTICS 4.4).
            is_kept = rejected | (flags & KNOWN == 0)
            validated, known_at = validated.filter(pa.array(is_kept)), known_at.filter(pa.array(is_kept))
            skip_remembering = flags[is_kept] & SEVERAL == 0
        segment = None
        if self._importer.dry_run:
            new = self._ids.preview(validated, now_us)
        else:
            # Under this lock no generation goes live, so no reader sees a generation without its history.
            generations, name = self._importer.streams.generations, self._source.name
            with generations.hold_apply_lock(name):
                if not generations.has_served(name) and not any(map(generations.list_written, self._importer.views)):
                    validated = validated.append_column(KNOWN_AT, known_at)
                    validated = validated.append_column(DECLARED, pa.array(np.ones(validated.num_rows, dtype=np.bool_)))
                new, segment = self._ids.accept(
                    log, validated, at=None, now_us=now_us, skip_remembering=skip_remembering
                )
        counts = RowCounts(accepted=new[REJECT].null_count, duplicates=rows.num_rows - new.num_rows)
        counts.add_refused(new[REJECT], log.partition, segment.first if segment else 0)
        if not self._importer.dry_run:
            DailyCounts(self._state.database).add(source_logs(self._source.name), now_us, counts)
        result.accepted += counts.accepted
        result.rejected += counts.rejected
        result.duplicates += counts.duplicates

    def _validate(self, rows: pa.Table, first: int, now_us: int) -> tuple[pa.Table, pa.Array]:
        """Return rows in the log's schema, and their known times if they are history."""
        rows, source = rows.combine_chunks(), self._source
        columns = {column.name: rows[column.name].cast(arrow_type(column.dtype)) for column in source.columns}
        times = rows[source.event_column].cast(pa.int64())
        positions = np.arange(first, first + rows.num_rows, dtype=np.int64)
        # Its created time, or else its time plus the declared delay (SEMANTICS 4.4).
        known = pc.add(times, source.delay_us)
        if source.created_column:
            known = pc.coalesce(rows[source.created_column].cast(pa.int64()), known)
        return self._validator.build_rows(columns, times, positions, now_us), known.fill_null(now_us)
