"""One run over the files of a source's history: appends new rows to the log (SEMANTICS 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import Clock
from skewless.contract.errors import SourceError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.event_rows import DECLARED, EVENT_ID, SOURCE_POS, event_schema
from skewless.infra.log.generations import Generations
from skewless.infra.log.log_columns import EVENT, INGEST, KNOWN_AT, RAW, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import log_ends
from skewless.infra.storage.leases import Lease
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.streams.decode import EventValidator
from skewless.infra.streams.event_ids import EventIds
from skewless.infra.streams.history_file import KNOWN, SEVERAL, HistoryFile, file_columns
from skewless.infra.streams.import_records import FilePrefix, ImportRecord, ImportRecords, Match, Matcher
from skewless.infra.streams.row_digest import RowDigest, digest_rows

BATCH_ROWS = 100_000

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


class ImportRun:
    """Imports the files of a source's history one after the other; the caller ensures that it runs alone.

    Args:
        source: of the events.
        views: as in ``Importer``.
        state: of the project.
        generations: of the views.
        lease: of the import; None: a dry run.
        clock: of the project.
        on_rows: called with a file's name and the number of rows that this run has imported.
    """

    def __init__(
        self,
        *,
        source: EventSource,
        views: Sequence[WindowView],
        state: ProjectState,
        generations: Generations,
        lease: Lease | None,
        clock: Clock,
        on_rows: OnRows,
    ) -> None:
        self._source = source
        self._views = views
        self._state = state
        self._generations = generations
        self._clock = clock
        self._dry_run = lease is None
        self._on_rows = on_rows
        self._records = ImportRecords(state.database, source.name, lease)
        self._pending: dict[str, HistoryFile] = {}
        self._matcher = Matcher(state, import_prefix(source), self._pending)
        self._validator = EventValidator(source, views)

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
        record_before = self._records.find_by_file(file.name)
        if record_before is not None and record_before.files[file.name][0] == fingerprint:
            result.present = record_before.files[file.name][1]
            return result
        count = file.count()
        if not count:
            return result
        match = self._matcher.find(file, count, self._records)
        if match is None:
            self._check_unchanged(file, record_before)
            match = self._begin_record(file)
        result.present = count if match.digest is None else match.digest.rows
        record = match.record
        if match.digest is not None:
            record = self._append_rows(file, count, record, match.digest, result)
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

    def _begin_record(self, file: HistoryFile) -> Match:
        columns = tuple(file_columns(self._source))
        digest = RowDigest(columns)
        record = ImportRecord(
            key=self._records.unused_key(file.name),
            columns=columns,
            head=digest_rows(columns, next(file.rows(columns, 1, last=0))),
            done=FilePrefix(rows=0, digest=digest.hexdigest()),
        )
        return Match(record=record, digest=digest)

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
        log, prefix = self._matcher.log(record.key), FilePrefix(rows=first, digest=digest.hexdigest())
        for rows in file.rows(columns, BATCH_ROWS, first, count - 1):  # rows added since the count are for the next run
            start = digest.rows
            digest.update(rows)
            record = replace(record, done=prefix, next=FilePrefix(rows=digest.rows, digest=digest.hexdigest()))
            # Durable before the append: after a kill, find_prefix decides whether the log has the batch.
            self._records.save(record)
            self._append_batch(
                log, rows, start, None if flags is None else flags[start - first : digest.rows - first], result
            )
            prefix = record.next or prefix
            self._on_rows(file.path.name, digest.rows - first)
        if self._dry_run:
            self._pending[record.key] = file
        return replace(record, done=prefix, next=None)

    def _append_batch(
        self, log: PartitionLog, rows: pa.Table, start: int, flags: npt.NDArray[np.uint8] | None, result: ImportedFile
    ) -> None:
        now_us = self._clock.now_us()
        validated, known_at = self._validate(rows, start, now_us)
        skip_remembering = None
        if flags is not None:
            rejected = validated[REJECT].is_valid().to_numpy()
            # A rejected row stays, because a message in quarantine does not use its id (SEMANTICS 4.4).
            is_kept = rejected | (flags & KNOWN == 0)
            validated, known_at = validated.filter(pa.array(is_kept)), known_at.filter(pa.array(is_kept))
            skip_remembering = flags[is_kept] & SEVERAL == 0
        new = (
            self._preview(validated, now_us)
            if self._dry_run
            else self._accept_rows(log, validated, known_at, now_us, skip_remembering)
        )
        n_rejected = new.num_rows - new[REJECT].null_count
        result.accepted += new.num_rows - n_rejected
        result.rejected += n_rejected
        result.duplicates += rows.num_rows - new.num_rows

    def _preview(self, validated: pa.Table, now_us: int) -> pa.Table:
        if self._source.id_column is None:
            return validated
        new = validated.filter(pa.array(~self._ids.find_known(validated, now_us)))
        self._ids.remember(new, now_us)
        return new

    def _accept_rows(
        self,
        log: PartitionLog,
        validated: pa.Table,
        known_at: pa.Array,
        now_us: int,
        skip_remembering: npt.NDArray[np.bool_] | None,
    ) -> pa.Table:
        # Under this lock no generation goes live, so no reader sees a generation without its history.
        with self._generations.hold_apply_lock(self._source.name):
            if not self._has_served():
                validated = validated.append_column(KNOWN_AT, known_at)
                validated = validated.append_column(DECLARED, pa.array(np.ones(validated.num_rows, dtype=np.bool_)))
            return self._ids.accept(log, validated, at=None, now_us=now_us, skip_remembering=skip_remembering).rows

    def _has_served(self) -> bool:
        generations = self._generations
        return generations.has_served(self._source.name) or any(map(generations.list_written, self._views))

    def _validate(self, rows: pa.Table, first: int, now_us: int) -> tuple[pa.Table, pa.Array]:
        """Return rows in the log's schema, and their known times if they are history."""
        n, source = rows.num_rows, self._source
        reasons: dict[int, str] = {}
        times = rows[source.event_column].combine_chunks()
        ts = self._validator.times(times, reasons, now_us)
        self._validator.values(rows, ts, reasons)
        ids = rows[source.id_column].cast(pa.string()) if source.id_column else pa.nulls(n, pa.string())
        columns = {column.name: rows[column.name] for column in source.columns} | {
            EVENT: pa.array(ts),
            INGEST: pa.array(np.full(n, now_us, dtype=np.int64)),
            SOURCE_POS: pa.array(np.arange(first, first + n, dtype=np.int64)),
            EVENT_ID: ids,
            REJECT: pa.array([reasons.get(i) for i in range(n)] if reasons else pa.nulls(n), pa.string()),
            RAW: pa.nulls(n, pa.binary()),
        }
        schema = event_schema(source)
        table = pa.table([_combine(columns[field.name]).cast(field.type) for field in schema], schema=schema)
        # Its created time, or else its time plus the declared delay (SEMANTICS 4.4).
        known = pc.add(times.cast(pa.int64()), source.delay_us)
        if source.created_column:
            known = pc.coalesce(rows[source.created_column].combine_chunks().cast(pa.int64()), known)
        return table, known.fill_null(now_us)


def _combine(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def import_prefix(source: EventSource) -> str:
    """Return the prefix of the names of a source's import partitions."""
    return f"events/{source.name}/import"
