"""Events from before the stream: files of history appended to the log as partitions of their own (SEMANTICS 4.4).

Each file is one partition, named by its path, so that new files are added by running it again; a file that was
taken in and has changed since is refused, since the log cannot forget.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from infra.durable import replace_durable
from infra.log.accepted import EVENT, INGEST, RAW, REJECT
from infra.log.event_log import KNOWN_AT, EventLog
from infra.log.event_rows import EVENT_ID, SOURCE_POS, event_schema
from infra.offline.sources import Table, check_columns, find_table
from infra.offline.sql import cast, quote
from infra.streams.decode import Judge
from skewless.clock import Clock
from skewless.dtypes import DType
from skewless.errors import SourceError
from skewless.windows.view import EventSource, WindowView

_BATCH_ROWS = 200_000
_ROW = "__row"

OnRows = Callable[[str, int], None]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of the history of a source.

    Args:
        files: how many files were new or went on.
        accepted, rejected: rows that this run appended.
        present: rows that the log had already.
    """

    source: str
    files: int
    accepted: int
    rejected: int
    present: int

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Appends the history of one source to its log; a run that was stopped is gone on with by the next.

    Args:
        repo: what paths are relative to.
        views: the windowed views of the source: an event that one of them could not sum exactly is refused.
    """

    source: EventSource
    views: list[WindowView]
    repo: Path
    log_root: Path
    connection: duckdb.DuckDBPyConnection
    clock: Clock

    def pending(self) -> dict[str, int]:
        """Return how many rows each file holds that the log does not, by path; nothing is changed."""
        return {str(file): self._rows_of(table) - self._log(file).next_seq() for file, table in self._tables()}

    def run(self, on_rows: OnRows = lambda _file, _done: None) -> Imported:
        """Append what is not there yet.

        Raises:
            SourceError: there is no history, a file has changed since it was taken in, or lacks a column.
            StoreError: the disk refused.
            ConflictError: another run appends the same file.
        """
        files = accepted = rejected = present = 0
        for file, table in self._tables():
            log = self._log(file)
            first = log.next_seq()
            present += first
            self._note(file, table)
            done = 0
            for rows in self._rows(table, first):
                judged, bad = self._judged(rows, first + done)
                log.append(judged, at=first + done)
                done += judged.num_rows
                rejected += bad
                accepted += judged.num_rows - bad
                on_rows(file.name, done)
            files += done > 0
        return Imported(source=self.source.name, files=files, accepted=accepted, rejected=rejected, present=present)

    def _tables(self) -> Iterator[tuple[Path, Table]]:
        name = f"history of event source {self.source.name!r}"
        if self.source.history is None:
            raise SourceError(name, "is not declared", fix="give the source a batch_source with the files")
        declared = {column.name: column.dtype for column in self.source.columns}
        whole = find_table(self.repo, self.source.history, name, declared)
        wanted = {**declared, self.source.event_column: DType.TIMESTAMP}
        if self.source.created_column:
            wanted[self.source.created_column] = DType.TIMESTAMP
        check_columns(whole, whole.column_types(self.connection), wanted)
        for file in whole.files:
            chosen, _ = whole.split([file])
            if chosen is not None:
                yield Path(file), chosen

    def _log(self, file: Path) -> EventLog:
        return EventLog(self.log_root, f"events/{self.source.name}/import/{self._digest(file)}")

    def _digest(self, file: Path) -> str:
        where = file.relative_to(self.repo) if file.is_relative_to(self.repo) else file
        return hashlib.sha256(str(where).encode()).hexdigest()[:16]

    def _note(self, file: Path, table: Table) -> None:
        """Remember what the file was when it was first taken in, and refuse it if it is another now."""
        path = self.log_root / "events" / self.source.name / f"import-{self._digest(file)}.json"
        now = table.fingerprint()
        if not path.exists():
            replace_durable(path, json.dumps({"file": str(file), "fingerprint": now}).encode())
        elif json.loads(path.read_text())["fingerprint"] != now:
            raise SourceError(
                f"history of event source {self.source.name!r}",
                "has a file that was imported and has changed since",
                value=str(file),
                fix="put it back as it was, and add new events as new files",
            )

    def _rows_of(self, table: Table) -> int:
        with table.opened(self.connection):
            query = f"SELECT count(*) FROM {table.relation}"
            return int(self.connection.execute(query, table.parameters).fetchall()[0][0])

    def _rows(self, table: Table, first: int) -> Iterator[pa.Table]:
        """Yield the rows from a number on, typed, in the order in which they stand."""
        types = table.column_types(self.connection)
        source = self.source
        listed = [
            f"{cast(quote(column.name), types[column.name], column.dtype)} AS {quote(column.name)}"
            for column in source.columns
        ]
        listed.append(f"{cast(quote(source.event_column), types[source.event_column], DType.TIMESTAMP)} AS {EVENT}")
        known = f"{EVENT} + {source.delay_us}"
        if source.created_column:
            created = cast(quote(source.created_column), types[source.created_column], DType.TIMESTAMP)
            known = f"coalesce({created}, {known})"
        query = f"SELECT {', '.join(listed)}, {known} AS {KNOWN_AT} FROM {table.relation} OFFSET {first}"
        with table.opened(self.connection):
            reader = self.connection.sql(query, params=table.parameters).to_arrow_reader(_BATCH_ROWS)
            for batch in reader:
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    def _judged(self, rows: pa.Table, first: int) -> tuple[pa.Table, int]:
        """Return rows as the log takes them, and how many of them are rejected."""
        n, now_us = rows.num_rows, self.clock.now_us()
        judge = Judge(self.source, self.views)
        reasons: dict[int, str] = {}
        ts = judge.times(rows[EVENT].combine_chunks(), reasons, now_us)
        judge.values(rows, ts, reasons)
        source_id = self.source.id_column
        ids = rows[source_id].cast(pa.string()) if source_id else pa.nulls(n, pa.string())
        columns = {column.name: rows[column.name] for column in self.source.columns} | {
            EVENT: pa.array(ts),
            INGEST: pa.array(np.full(n, now_us, dtype=np.int64)),
            SOURCE_POS: pa.array(np.arange(first, first + n, dtype=np.int64)),
            EVENT_ID: ids,
            REJECT: pa.array([reasons.get(i) for i in range(n)] if reasons else pa.nulls(n), pa.string()),
            RAW: pa.nulls(n, pa.binary()),
        }
        schema = event_schema(self.source)
        table = pa.table([_whole(columns[field.name]).cast(field.type) for field in schema], schema=schema)
        known = rows[KNOWN_AT].combine_chunks().fill_null(now_us).cast(pa.int64())
        return table.append_column(KNOWN_AT, known), len(reasons)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
