"""Read the events of a log for a windowed view, sorted by key and time, in chunks of keys."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers, int64_array, numbers
from skewless.contract.status import Int64Array
from skewless.contract.window_events import EventSelector, ViewEvents
from skewless.contract.windows.state_layout import NEVER, EventOrigins, partition_number
from skewless.contract.windows.view import WindowView
from skewless.infra.log.bucket_order import BucketRange, plan_scans
from skewless.infra.log.log_columns import EVENT, KNOWN_AT, SEQ
from skewless.infra.reads.offline.as_of import ROW, TIME
from skewless.infra.reads.offline.matched_rows import copy_to_table, register_tables
from skewless.infra.reads.offline.window_sql import (
    KEY,
    PART,
    PartitionScan,
    count_most_rows,
    events_sql,
    row_keys_sql,
    row_numbers_sql,
    timeline_sql,
    unsummable_sql,
)

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 250_000
_ENTITIES = "window_entities"
_KEYS = "window_keys"


@dataclass(frozen=True, kw_only=True)
class LogPartition:
    """One partition of an event log.

    Args:
        partition: name of the partition.
        files: Parquet files, whose columns may differ.
        ends: when positions had been applied: int64 columns first, last, ended_us; disjoint, growing. Used for rows
            without ``__known_at``.
    """

    partition: str
    files: Sequence[str]
    ends: pa.Table


@dataclass(frozen=True, kw_only=True)
class EventChunk:
    """All events of some keys, or a part of those of one key, sorted by key, ts, partition and seq.

    Args:
        first: number of the first key.
        keys: number of keys, some of which may have no event.
        entity: number of each event's key, relative to ``first``.
        part: number of each event's partition.
        known: known time of each event, microseconds, ``NEVER`` if not yet; empty if not requested.
        events: the events that count in the view.
        continues: the next chunk has later events of the only key.
    """

    first: int
    keys: int
    entity: Int64Array
    part: Int64Array
    known: Int64Array
    events: ViewEvents
    continues: bool


class WindowEvents:
    """Reads the events of a log for one view.

    Args:
        upto: per partition, the last position that counts; of other partitions all positions count.
        known: read the known time of each event, too.
        buckets: read only events of these entities from files that are sorted by them; None: read all.

    Attributes:
        part_index: per number of a partition with files, its index in ``parts``.
        files: the files of these partitions, for each scan.
        sql: the query of all events; bind ``files`` to it.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: WindowView,
        parts: Sequence[LogPartition],
        upto: Mapping[str, int],
        *,
        known: bool,
        buckets: BucketRange | None = None,
    ) -> None:
        self._connection, self._view, self._known = connection, view, known
        self._selector = EventSelector(view)
        hashes = np.array([partition_number(part.partition) for part in parts], dtype=np.int64)
        # Partitions are numbered in the order of their hashes: events sorted by number are sorted by partition hash.
        self.part_index = [int(index) for index in np.argsort(hashes) if parts[index].files]
        self._hashes = hashes[self.part_index]
        self._parts = [parts[index] for index in self.part_index]
        self.files: list[list[str]] = []
        scans = []
        for number, part in enumerate(self._parts):
            for scan in plan_scans(part.files, view.keys, buckets):
                self.files.append(list(scan.files))
                columns, last = read_column_names(connection, scan.files), upto.get(part.partition)
                scans.append(PartitionScan(number=number, columns=columns, last=last, condition=scan.condition))
        self.sql = events_sql(view.keys, view.logged_inputs, scans, known=known)

    def chunks(self, numbered: str, rows: int) -> Generator[EventChunk]:
        """Yield the events of all keys with events, about ``rows`` events at a time, also of one key.

        The connection must not be used for anything else until the iterator is exhausted or closed.

        Args:
            numbered: table of keys and their numbers, from ``row_keys_sql`` or ``all_keys_sql``.
        """
        if not self.files:
            return
        query = timeline_sql([key.name for key in self._view.keys], self.sql, numbered)
        # Close the reader at once: with an open result, the connection rejects all other queries, also the clean-up.
        with self._connection.sql(query, params=self.files).to_arrow_reader(min(rows, _BATCH_ROWS)) as reader:
            for table, continues in split_by_key(reader, KEY, rows):
                yield self._build_chunk(table, continues=continues)

    def count_unsummable(self) -> dict[str, int]:
        """Return, per summed column, the number of events with a value too large for an exact sum."""
        counts: dict[str, int] = {}
        if not self.files:
            return counts
        query = f"SELECT * FROM ({self.sql}) WHERE {unsummable_sql(self._view)}"
        with self._connection.sql(query, params=self.files).to_arrow_reader(_BATCH_ROWS) as reader:
            for batch in reader:
                rows = pa.Table.from_batches([batch])
                too_large = self._selector.find_beyond(rows.select(self._selector.columns), _int64s(rows[EVENT]))
                for name, is_too_large in too_large.items():
                    counts[name] = counts.get(name, 0) + int(is_too_large.sum())
        return {name: count for name, count in counts.items() if count}

    def _build_chunk(self, table: pa.Table, *, continues: bool) -> EventChunk:
        key, part, seq = _int64s(table[KEY]), _int64s(table[PART]), _int64s(table[SEQ])
        # SQL returns the partition's number; states have its hash.
        origin = EventOrigins(ts=_int64s(table[EVENT]), partition=self._hashes[part], seq=seq)
        events = self._selector.select(table.select(self._selector.columns), origin)
        known = self._known_at(table[KNOWN_AT], part, seq)[events.rows] if self._known else np.empty(0, np.int64)
        first = int(key[0])
        return EventChunk(
            first=first,
            keys=int(key[-1]) - first + 1,
            entity=key[events.rows] - first,
            part=part[events.rows],
            known=known,
            events=events,
            continues=continues,
        )

    def _known_at(self, recorded: pa.ChunkedArray, part: Int64Array, seq: Int64Array) -> Int64Array:
        known = filled_numbers(recorded, int(NEVER))
        missing = known == NEVER
        # The known time moves from the end records into the files when they are compacted, so young files lack it.
        for number, partition in enumerate(self._parts):
            rows = np.flatnonzero(missing & (part == number))
            known[rows] = find_applied_times(partition.ends, seq[rows])
        return known


def read_row_events(
    connection: duckdb.DuckDBPyConnection,
    events: WindowEvents,
    entities: pa.Table,
    keys: Sequence[str],
    rows: int,
    reach_us: int | None = None,
    most: int | None = None,
) -> Generator[tuple[EventChunk, Int64Array, Int64Array]]:
    """Yield the events of the keys of entity rows, some keys at a time, with the rows and the key number of each row.

    Keys are numbered from the chunk's first key. Rows with a null key, and keys without events, are in no chunk. A key
    with many rows has several numbers, each for some of its times.
    The connection must not be used for anything else until the iterator is exhausted or closed.

    Args:
        entities: key columns and ``__t``.
        rows: approximate number of events in a chunk.
        reach_us: how far before ``__t`` events are read; None: all events.
        most: number of rows of a key with one number, if their times differ; None: any number.
    """
    row_table = entities.select([*keys, TIME]).append_column(ROW, int64_array(np.arange(entities.num_rows)))
    with register_tables(connection, {_ENTITIES: row_table}), ExitStack() as stack:
        is_few = most is None or entities.num_rows <= most or count_most_rows(connection, keys, _ENTITIES) <= most
        most = None if is_few else most
        query = row_keys_sql(keys, _ENTITIES, reach_us, most)
        numbered = stack.enter_context(copy_to_table(connection, _KEYS, query, []))
        table = connection.sql(row_numbers_sql(keys, _ENTITIES, ROW, numbered)).to_arrow_table()
        row, key = numbers(table[ROW]), numbers(table[KEY])
        with closing(events.chunks(numbered, rows)) as chunks:
            for chunk in chunks:
                low, high = np.searchsorted(key, [chunk.first, chunk.first + chunk.keys])
                yield chunk, row[low:high], key[low:high] - chunk.first


def split_by_key(batches: Iterable[pa.RecordBatch], key: str, rows: int) -> Iterator[tuple[pa.Table, bool]]:
    """Yield rows sorted by key in tables of about ``rows`` rows, each with all rows of its keys, or some of one key.

    The flag says whether the next table has more rows of the only key.

    >>> batches = pa.table({"k": [1, 1, 2, 2, 3, 3, 3]}).to_batches(max_chunksize=2)
    >>> [(table["k"].to_pylist(), continues) for table, continues in split_by_key(batches, "k", 2)]
    [([1, 1], False), ([2, 2], False), ([3, 3], True), ([3], False)]
    """
    pending: list[pa.RecordBatch] = []
    is_split = False
    for part in (whole.slice(at, rows) for whole in batches for at in range(0, whole.num_rows, rows)):
        batch, last, count = part, part[key][-1].as_py(), sum(each.num_rows for each in pending)
        if pending and pending[0][key][0].as_py() == last:  # all rows have one key
            if count >= rows:
                yield pa.Table.from_batches(pending), True
                pending, is_split = [], True
            pending.append(batch)
            continue
        if is_split:  # other keys do not belong into a table with the rest of a key
            end = int(np.searchsorted(numbers(batch[key]), pending[0][key][0].as_py(), side="right"))
            yield pa.Table.from_batches([*pending, batch.slice(0, end)]), False
            pending, is_split, batch, count = [], False, batch.slice(end), 0
        # The last key may continue in the next batch, so its rows wait.
        edge = int(np.searchsorted(numbers(batch[key]), last))
        if count + edge >= rows and (edge or pending):
            complete, pending = _split(pending, batch, key, edge)
            yield pa.Table.from_batches(complete), False
        else:
            pending.append(batch)
    if pending:
        yield pa.Table.from_batches(pending), False


def read_column_names(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> frozenset[str]:
    """Return the names of all columns in some files of a log."""
    return frozenset(connection.sql("SELECT * FROM read_parquet(?, union_by_name=true)", params=[list(files)]).columns)


def find_applied_times(ends: pa.Table, seq: Int64Array) -> Int64Array:
    """Return when each position had been applied; ``NEVER`` if no record covers it.

    >>> ends = pa.table({"first": [0, 5], "last": [3, 9], "ended_us": [70, 80]})
    >>> find_applied_times(ends, np.array([3, 5])).tolist()
    [70, 80]
    >>> find_applied_times(ends, np.array([4])).tolist() == [int(NEVER)]
    True
    """
    result = np.full(len(seq), NEVER)
    if ends.num_rows:
        at = np.searchsorted(_int64s(ends["first"]), seq, side="right") - 1
        # Ranges have gaps: a position in a gap has been accepted, but not been applied to all states.
        rows = np.flatnonzero((at >= 0) & (seq <= _int64s(ends["last"])[at]))
        result[rows] = _int64s(ends["ended_us"])[at[rows]]
    return result


def _split(
    pending: list[pa.RecordBatch], batch: pa.RecordBatch, key: str, edge: int
) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Return the batches before the last key of a batch, and the batches from that key on."""
    if edge:
        return [*pending, batch.slice(0, edge)], [batch.slice(edge)]
    # The key began in an earlier batch: go back to its first row.
    last_key, later = batch[key][0].as_py(), [batch]
    for i in range(len(pending) - 1, -1, -1):
        at = int(np.searchsorted(numbers(pending[i][key]), last_key))
        if at:
            rest = [pending[i].slice(at)] if at < pending[i].num_rows else []
            return [*pending[:i], pending[i].slice(0, at)], [*rest, *later]
        later.insert(0, pending[i])
    return [], later


def _int64s(column: pa.ChunkedArray) -> Int64Array:
    """Return a column of integers without nulls; DLPack, unlike ``to_numpy``, does not import pandas."""
    return np.concatenate([np.empty(0, np.int64), *(np.from_dlpack(chunk) for chunk in column.chunks)])
