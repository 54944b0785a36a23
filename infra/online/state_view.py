"""One generation of a windowed view's states: appended to once for each log position, rolled up when they are long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.keys import KeyCodec
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.window_events import ViewEvents
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.rolling import Roller
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.online.port import FOREIGN, LONG, PART, STOOD, OnlineStore


@dataclass(frozen=True, kw_only=True)
class StateView:
    """One generation of the states of a windowed view, and what packs, names and writes them.

    Every method that writes raises StoreError when the store refuses or is away.
    """

    view: WindowView
    generation: int
    keys: KeyCodec
    codec: TileCodec
    layout: StateLayout
    roller: Roller

    @classmethod
    def of(cls, project: str, view: WindowView, generation: int) -> StateView:
        """Return the means of a view's generation."""
        return cls(
            view=view,
            generation=generation,
            keys=KeyCodec(project, view, generation),
            codec=TileCodec(view),
            layout=StateLayout(view),
            roller=Roller(view),
        )

    def append(self, store: OnlineStore, events: ViewEvents, m: int, marker: tuple[str, int | None]) -> int:
        """Add events of one partition to the states of their entities; return how many states were changed.

        Events at positions that a state has seen are left out, so that it may be done again; but those of one
        partition must come in the order of their positions.

        Args:
            m: states that have grown long are rolled up to this moment, microseconds.
            marker: name and position of the marker that says how far the partition was applied. A store where it is
                further back has lost writes: it refuses, since it would never take what is missing.
        """
        if not len(events.rows):
            return 0
        return self._append(store, self.names(events.keys), events, m, marker)

    def roll(self, store: OnlineStore, keys: pa.Array, m: int) -> int:
        """Roll states up to a moment; return how many; one that changes meanwhile is left for the next time."""
        old = store.get(keys)
        return self.replace(store, keys, old, self.codec.pack(self.roller.roll(self.codec.unpack(old), m)))

    def create(self, store: OnlineStore, keys: pa.Table, tiles: Tiles) -> None:
        """Write whole states of a generation that nobody reads or appends to yet."""
        named = self.names(keys)
        # Over what a killed loader left: its number was never given out.
        if self.replace(store, named, store.get(named), self.codec.pack(tiles)) < len(named):
            raise StoreError(
                f"view {self.view.name!r}",
                "is being built by another process too",
                value=self.generation,
                fix="run `skewless backfill` once at a time",
            )

    def replace(self, store: OnlineStore, keys: pa.Array, old: Sequence[bytes | None], new: pa.Array) -> int:
        """Replace states that are still as they were read; return how many."""
        return int(store.replace(keys, old, new, [self.codec.head(state) for state in old]).sum())

    def names(self, keys: pa.Table) -> pa.Array:
        """Return the keys of the states of some entities."""
        return self.keys.pack({name: keys[name].combine_chunks() for name in keys.column_names})

    def _append(
        self, store: OnlineStore, named: pa.Array, events: ViewEvents, m: int, marker: tuple[str, int | None]
    ) -> int:
        words = named.dictionary_encode()
        keys = words.dictionary
        entity = words.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        tiles = Tiles.of_events(self.layout, len(keys), entity, events.origin, events.words, events.hashes)
        letters = store.append(keys, self.codec.updates(tiles), marker)
        if (letters == FOREIGN).any():
            raise StoreError(
                f"view {self.view.name!r}",
                "meets a state in this online store that another plan wrote",
                value=self.view.hash,
                fix=f"run `skewless backfill {self.view.name}`, or correct redis_url",
            )
        partly = np.asarray(letters == PART, dtype=np.bool_)
        changed = int((~partly & (letters != STOOD)).sum())
        long = np.flatnonzero(letters == LONG)
        if len(long):
            self.roll(store, keys.take(pa.array(long)), m)
        if partly.any():
            new = self._unseen(store, keys, events, entity, partly)
            rest = events.take(new)
            changed += self._append(store, named.take(pa.array(new)), rest, m, marker) if len(new) else 0
        return changed

    def _unseen(
        self, store: OnlineStore, keys: pa.Array, events: ViewEvents, entity: Int64Array, partly: BoolArray
    ) -> Int64Array:
        """Return which events lack in states that have seen some of theirs: batches may have other bounds than then."""
        places = np.flatnonzero(partly)
        slots = self.codec.unpack(store.get(keys.take(pa.array(places)))).slots
        applied = np.full(len(keys), -1, dtype=np.int64)
        own = slots.partition == events.origin.partition[0]
        applied[places[slots.entity[own]]] = slots.seq[own]
        return np.flatnonzero(partly[entity] & (events.origin.seq > applied[entity]))
