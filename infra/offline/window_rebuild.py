"""The states of given entities built from the log alone: what a repair puts in place of damaged ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.windows.rolling import Roller
from skewless.contract.windows.state_layout import Origin, StateLayout
from skewless.contract.windows.tiles import Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.as_of import ROW, TIME
from skewless.infra.offline.window_events import EventChunk, LogPart, WindowEvents
from skewless.infra.offline.window_positions import keys_sql
from skewless.infra.offline.window_sql import places_sql
from skewless.infra.offline.winners import copied, registered

_ENTITIES = "rebuilt_entities"
_KEYS = "rebuilt_keys"
_CHUNK_ROWS = 250_000

Rebuilt = tuple[npt.NDArray[np.intp], Tiles]


def rebuilt_states(
    connection: duckdb.DuckDBPyConnection, view: WindowView, parts: Sequence[LogPart], keys: pa.Table, m: int
) -> Iterator[Rebuilt]:
    """Yield the states of entities from all events of the log, some at a time: which rows, and their states.

    An entity without events has a state that holds nothing. The connection must not be used meanwhile.

    Args:
        keys: key columns, whole and distinct.
        m: before which moment events are rolled up, microseconds.
    """
    names = [column.name for column in view.keys]
    numbers = np.arange(keys.num_rows)
    asked = keys.select(names).append_column(ROW, pa.array(numbers)).append_column(TIME, pa.array(numbers))
    events = WindowEvents(connection, view, parts, {}, known=False)
    maker = _Maker(view, m)
    left = np.ones(keys.num_rows, dtype=np.bool_)
    with registered(connection, {_ENTITIES: asked}), copied(connection, _KEYS, keys_sql(names, _ENTITIES), []) as table:
        places = connection.sql(places_sql(names, _ENTITIES, ROW, table)).to_arrow_table()
        row_of_key = places[ROW].to_numpy()  # sorted by the key's number, and each key has one row
        for chunk in events.chunks(table, _CHUNK_ROWS):
            rows = row_of_key[chunk.first : chunk.first + chunk.keys]
            left[rows] = False
            yield rows, maker.states(chunk)
    if left.any():
        yield np.flatnonzero(left), maker.nothing(int(left.sum()))


class _Maker:
    def __init__(self, view: WindowView, m: int) -> None:
        self._layout, self._roller, self._m = StateLayout(view), Roller(view), m

    def states(self, chunk: EventChunk) -> Tiles:
        seen = chunk.events
        tiles = Tiles.of_events(self._layout, chunk.keys, chunk.entity, seen.origin, seen.words, seen.hashes)
        return self._roller.roll(tiles, self._m)

    def nothing(self, n: int) -> Tiles:
        none = np.empty(0, dtype=np.int64)
        words = np.empty((self._layout.width, 0), dtype=np.int64)
        hashes = np.empty((len(self._layout.hashed), 0), dtype=np.uint64)
        origin = Origin(ts=none, partition=none, seq=none)
        return Tiles.of_events(self._layout, n, none, origin, words, hashes)
