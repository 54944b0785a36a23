"""Which positions of a log partition touched which entities of a windowed view."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.segments import first_at_least
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.as_of import ROW, TIME
from skewless.infra.offline.sql import names, quote
from skewless.infra.offline.window_events import EventChunk, LogPart, WindowEvents
from skewless.infra.offline.window_sql import KEY, places_sql
from skewless.infra.offline.winners import copied, registered

_ENTITIES = "touched_entities"
_KEYS = "touched_keys"
_CHUNK_ROWS = 1_000_000
_ALWAYS = 2**62


def touched_between(
    connection: duckdb.DuckDBPyConnection,
    view: WindowView,
    part: LogPart,
    entities: pa.Table,
    after: Int64Array,
    upto: Int64Array,
) -> BoolArray:
    """Return for each entity row whether an event that counts for it lies at ``after < position <= upto``.

    Args:
        entities: key columns and ``__t``; a row with a null key was touched by nothing.
    """
    touched = np.zeros(entities.num_rows, dtype=np.bool_)
    if not part.files or not entities.num_rows:
        return touched
    keys = [column.name for column in view.keys]
    asked = entities.select([*keys, TIME]).append_column(ROW, pa.array(np.arange(entities.num_rows)))
    events = WindowEvents(connection, view, [part], {part.partition: int(upto.max(initial=-1))}, known=False)
    with (
        registered(connection, {_ENTITIES: asked}),
        copied(connection, _KEYS, keys_sql(keys, _ENTITIES), []) as numbered,
    ):
        places = connection.sql(places_sql(keys, _ENTITIES, ROW, numbered)).to_arrow_table()
        rows, key = places[ROW].to_numpy(), places[KEY].to_numpy()
        for chunk in events.chunks(numbered, _CHUNK_ROWS):
            low, high = np.searchsorted(key, [chunk.first, chunk.first + chunk.keys])
            some = rows[low:high]
            touched[some] = _touched(chunk, key[low:high] - chunk.first, after[some], upto[some])
    return touched


def _touched(chunk: EventChunk, entity: Int64Array, after: Int64Array, upto: Int64Array) -> BoolArray:
    seq = chunk.events.origin.seq
    order = np.lexsort((seq, chunk.entity))
    seq, bounds = seq[order], np.searchsorted(chunk.entity[order], np.arange(chunk.keys + 1))
    begin, end = bounds[entity], bounds[entity + 1]
    found = first_at_least(seq, begin, end, after + 1)
    return np.asarray((found < end) & (np.append(seq, 0)[found] <= upto), dtype=np.bool_)


def keys_sql(keys: list[str], entities: str) -> str:
    """Return SQL for the distinct whole keys of entity rows, numbered from 0, to whom all times matter."""
    listed = names(keys)
    whole = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
    return (
        f"SELECT {listed}, row_number() OVER () - 1 AS {KEY}, -{_ALWAYS} AS __from, {_ALWAYS} AS __until"
        f" FROM {entities} WHERE {whole} GROUP BY {listed}"
    )
