"""The events of a log as windowed views take them: streamed by key and time, some keys at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from skewless.contract.status import Int64Array
from skewless.contract.window_events import EventLens, ViewEvents
from skewless.contract.windows.state_layout import NEVER, EventOrigins, partition_number
from skewless.contract.windows.view import WindowView
from skewless.infra.log.accepted import EVENT, SEQ
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.offline.as_of import ROW, TIME
from skewless.infra.offline.matched_rows import copied, registered
from skewless.infra.offline.window_sql import (
    KEY,
    PART,
    PartitionScan,
    asked_keys_sql,
    events_sql,
    large_sql,
    places_sql,
    timeline_sql,
)

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 250_000
_ENTITIES = "window_entities"
_KEYS = "window_keys"


@dataclass(frozen=True, kw_only=True)
class LogPart:
    """One partition of an event log.

    Args:
        partition: its name.
        files: Parquet files; their columns may differ.
        ends: when the applying of positions ended: int64 columns first, last, ended_us; disjoint, growing. It fills
            in where rows have no ``__known_at``.
    """

    partition: str
    files: Sequence[str]
    ends: pa.Table


@dataclass(frozen=True, kw_only=True)
class EventChunk:
    """All events of some keys, by key, ts, partition and seq.

    Args:
        first: the number of the first key.
        keys: how many keys, some of which may have no event.
        entity: which key each event belongs to, counted from the first.
        part: of each event, number of its partition.
        known: when each was known, microseconds, ``NEVER`` if not yet; empty where that was not asked.
    """

    first: int
    keys: int
    entity: Int64Array
    part: Int64Array
    known: Int64Array
    events: ViewEvents


class WindowEvents:
    """Reads the events of a log for one view.

    Args:
        upto: per partition, the last position that counts; others count as a whole.
        known: read too when each event was known.

    Attributes:
        place: of each partition that has files, by its number, its place among the parts.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: WindowView,
        parts: Sequence[LogPart],
        upto: Mapping[str, int],
        *,
        known: bool,
    ) -> None:
        self._connection, self._view, self._known = connection, view, known
        self._lens = EventLens(view)
        hashes = np.array([partition_number(part.partition) for part in parts], dtype=np.int64)
        # Numbers follow the hashes, so that events sorted by number are sorted by partition.
        self.place = [int(place) for place in np.argsort(hashes) if parts[place].files]
        self._hashes = hashes[self.place]
        self._parts = [parts[place] for place in self.place]
        self.files = [list(part.files) for part in self._parts]
        scans = [
            PartitionScan(number=number, columns=columns_of(connection, files), last=upto.get(part.partition))
            for number, (part, files) in enumerate(zip(self._parts, self.files, strict=True))
        ]
        self.sql = events_sql(view.keys, view.logged_inputs, scans, known=known)

    def chunks(self, numbered: str, rows: int) -> Generator[EventChunk]:
        """Yield the events of all keys that have some, about as many rows at a time.

        The connection must not be used for anything else before the iterator is at its end or closed.

        Args:
            numbered: table of keys and their numbers, ``asked_keys_sql`` or ``all_keys_sql``.
        """
        if not self.files:
            return
        query = timeline_sql([key.name for key in self._view.keys], self.sql, numbered)
        # Closed at once: while a result is open, the connection refuses all else, the clean-up too.
        with self._connection.sql(query, params=self.files).to_arrow_reader(min(rows, _BATCH_ROWS)) as reader:
            for table in whole_keys(reader, KEY, rows):
                yield self._chunk(table)

    def beyond(self) -> dict[str, int]:
        """Return, per summed column, how many events do not count because their value is too large for an exact sum."""
        found: dict[str, int] = {}
        if not self.files:
            return found
        query = f"SELECT * FROM ({self.sql}) WHERE {large_sql(self._view)}"
        with self._connection.sql(query, params=self.files).to_arrow_reader(_BATCH_ROWS) as reader:
            for batch in reader:
                rows = pa.Table.from_batches([batch])
                for name, out in self._lens.beyond(rows.select(self._lens.columns), _int64s(rows[EVENT])).items():
                    found[name] = found.get(name, 0) + int(out.sum())
        return {name: count for name, count in found.items() if count}

    def _chunk(self, table: pa.Table) -> EventChunk:
        key, part, seq = _int64s(table[KEY]), _int64s(table[PART]), _int64s(table[SEQ])
        origin = EventOrigins(ts=_int64s(table[EVENT]), partition=self._hashes[part], seq=seq)
        events = self._lens.look(table.select(self._lens.columns), origin)
        known = self._known_at(table[KNOWN_AT], part, seq)[events.rows] if self._known else np.empty(0, np.int64)
        first = int(key[0])
        return EventChunk(
            first=first,
            keys=int(key[-1]) - first + 1,
            entity=key[events.rows] - first,
            part=part[events.rows],
            known=known,
            events=events,
        )

    def _known_at(self, recorded: pa.ChunkedArray, part: Int64Array, seq: Int64Array) -> Int64Array:
        known = _int64s(recorded.fill_null(int(NEVER)))
        missing = known == NEVER
        for number, log in enumerate(self._parts):
            rows = np.flatnonzero(missing & (part == number))
            known[rows] = ended_at(log.ends, seq[rows])
        return known


def events_of_rows(
    connection: duckdb.DuckDBPyConnection,
    events: WindowEvents,
    entities: pa.Table,
    keys: Sequence[str],
    rows: int,
    reach_us: int | None = None,
) -> Generator[tuple[EventChunk, Int64Array, Int64Array]]:
    """Yield the events of the keys of entity rows, some keys at a time, with the rows and the key of each.

    Keys count from the chunk's first. A row with a null key has no events; nor may a key, which then is in no chunk.
    The connection must not be used for anything else before the iterator is at its end or closed.

    Args:
        entities: key columns and ``__t``.
        rows: about how many events at a time.
        reach_us: how far before ``__t`` events matter; None: all do.
    """
    asked = entities.select([*keys, TIME]).append_column(ROW, pa.array(np.arange(entities.num_rows)))
    with (
        registered(connection, {_ENTITIES: asked}),
        copied(connection, _KEYS, asked_keys_sql(keys, _ENTITIES, reach_us), []) as numbered,
    ):
        places = connection.sql(places_sql(keys, _ENTITIES, ROW, numbered)).to_arrow_table()
        row, key = places[ROW].to_numpy(), places[KEY].to_numpy()
        with closing(events.chunks(numbered, rows)) as chunks:
            for chunk in chunks:
                low, high = np.searchsorted(key, [chunk.first, chunk.first + chunk.keys])
                yield chunk, row[low:high], key[low:high] - chunk.first


def whole_keys(batches: Iterable[pa.RecordBatch], key: str, rows: int) -> Iterator[pa.Table]:
    """Yield rows sorted by key in tables of about as many rows, each with all rows of its keys.

    >>> batches = pa.table({"k": [1, 1, 2, 2, 3]}).to_batches(max_chunksize=2)
    >>> [table["k"].to_pylist() for table in whole_keys(batches, "k", 2)]
    [[1, 1], [2, 2], [3]]
    """
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        keys = batch[key].to_numpy()
        edge = int(np.searchsorted(keys, keys[-1]))
        full = sum(one.num_rows for one in held) + edge >= rows
        if full and (edge or (held and held[0][key][0].as_py() != keys[-1])):
            before, held = _split(held, batch, key, edge)
            yield pa.Table.from_batches(before)
        else:
            held.append(batch)
    if held:
        yield pa.Table.from_batches(held)


def columns_of(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> frozenset[str]:
    """Return the names of the columns that any of some files of a log has."""
    return frozenset(connection.sql("SELECT * FROM read_parquet(?, union_by_name=true)", params=[list(files)]).columns)


def ended_at(ends: pa.Table, seq: Int64Array) -> Int64Array:
    """Return when the applying of each position ended; ``NEVER`` where no record covers it.

    >>> ends = pa.table({"first": [0, 5], "last": [3, 9], "ended_us": [70, 80]})
    >>> ended_at(ends, np.array([3, 5])).tolist(), ended_at(ends, np.array([4])).tolist() == [int(NEVER)]
    ([70, 80], True)
    """
    result = np.full(len(seq), NEVER)
    if ends.num_rows:
        at = np.searchsorted(_int64s(ends["first"]), seq, side="right") - 1
        rows = np.flatnonzero((at >= 0) & (seq <= _int64s(ends["last"])[at]))
        result[rows] = _int64s(ends["ended_us"])[at[rows]]
    return result


def _split(
    held: list[pa.RecordBatch], batch: pa.RecordBatch, key: str, edge: int
) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Return the batches before a batch's last key, and what is left."""
    if edge:
        return [*held, batch.slice(0, edge)], [batch.slice(edge)]
    # The key began in earlier batches: go back to where.
    wanted, later = batch[key][0].as_py(), [batch]
    for i in range(len(held) - 1, -1, -1):
        at = int(np.searchsorted(held[i][key].to_numpy(), wanted))
        if at:
            rest = [held[i].slice(at)] if at < held[i].num_rows else []
            return [*held[:i], held[i].slice(0, at)], [*rest, *later]
        later.insert(0, held[i])
    return [], later


def _int64s(column: pa.ChunkedArray) -> Int64Array:
    return np.array(column.to_numpy(), dtype=np.int64)
