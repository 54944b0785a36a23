"""One generation of a windowed view's states: appends each log position once, and rolls up long states."""

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
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import Roller, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.online.port import FOREIGN, LONG, PARTLY_SEEN, SEEN, OnlineStore


@dataclass(frozen=True, kw_only=True)
class StateView:
    """One generation of the states of a windowed view, with its codecs.

    Every method that writes raises StoreError when the store rejects the command or is unavailable.
    """

    view: WindowView
    generation: int
    keys: KeyCodec
    codec: TileCodec
    layout: StateLayout
    roller: Roller

    @classmethod
    def of(cls, project: str, view: WindowView, generation: int) -> StateView:
        """Return the states of one generation of a view."""
        return cls(
            view=view,
            generation=generation,
            keys=KeyCodec(project, view, generation),
            codec=TileCodec(view),
            layout=StateLayout(view),
            roller=Roller(view),
        )

    def append(self, store: OnlineStore, events: ViewEvents, m: int, marker: tuple[str, int | None]) -> int:
        """Add events of one partition to the states of their entities; return how many states have changed.

        Positions that a state already includes are skipped, so the call can be repeated. The events of one partition
        must come in the order of their positions.

        Args:
            store: the online store.
            events: of one partition.
            m: the time to which long states are rolled up, microseconds.
            marker: name and minimum position of the partition's marker. A store whose marker is behind has lost writes
                and rejects the call: the missing events would never be added.
        """
        if not len(events.rows):
            return 0
        return self._append(store, self.names(events.keys), events, m, marker)

    def roll(self, store: OnlineStore, keys: pa.Array, m: int) -> int:
        """Roll up states to time ``m``; return how many. States that change in the meantime are skipped."""
        old = store.get(keys)
        return self.replace(store, keys, old, self.codec.pack(self.roller.roll(self.codec.unpack(old), m)))

    def create(
        self, store: OnlineStore, keys: pa.Table, tiles: Tiles, markers: Sequence[str] = ()
    ) -> tuple[pa.Array, pa.Array]:
        """Write complete states of a generation that nobody reads or appends to yet; return their names and bytes.

        Two attempts of one task may write the same states at once.

        Args:
            store: the online store.
            keys, tiles: the entities and their states.
            markers: of the generation's partitions that have events; their position is -1 until all states are
                written. An attempt that is late must not replace states to which newer events were appended.

        Raises:
            StoreError: another process writes other states, or all states are already written.
        """
        state_keys, states = self.names(keys), self.codec.pack(tiles)
        # Replaces states of another project that had the same name and store.
        old = store.get(state_keys)
        # After the read: if events were appended before it, the markers show it; if later, the states have changed.
        if any(marker is None or marker.position >= 0 for marker in store.read_markers(markers)):
            raise self._conflict("is already complete, or was lost")
        refused = np.flatnonzero(~self._replace(store, state_keys, old, states))
        if len(refused):
            places = pa.array(refused)
            if store.get(state_keys.take(places)) != states.take(places).to_pylist():
                raise self._conflict("is being backfilled by another process")
        return state_keys, states

    def _conflict(self, problem: str) -> StoreError:
        fix = "run one `skewless backfill` at a time"
        return StoreError(f"view {self.view.name!r}", problem, value=self.generation, fix=fix)

    def replace(self, store: OnlineStore, keys: pa.Array, old: Sequence[bytes | None], new: pa.Array) -> int:
        """Replace states that have not changed since they were read; return how many."""
        return int(self._replace(store, keys, old, new).sum())

    def _replace(self, store: OnlineStore, keys: pa.Array, old: Sequence[bytes | None], new: pa.Array) -> BoolArray:
        return store.replace(keys, old, new, [self.codec.head(state) for state in old])

    def names(self, keys: pa.Table) -> pa.Array:
        """Return the keys of the states of entities."""
        return self.keys.pack({name: keys[name].combine_chunks() for name in keys.column_names})

    def _append(
        self, store: OnlineStore, state_keys: pa.Array, events: ViewEvents, m: int, marker: tuple[str, int | None]
    ) -> int:
        # Groups events by entity, so that each state gets one update.
        encoded = state_keys.dictionary_encode()
        keys = encoded.dictionary
        entity = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        tiles = Tiles.from_events(self.layout, len(keys), entity, events.origin, events.words, events.hashes)
        letters = store.append(keys, self.codec.updates(tiles), marker)
        if (letters == FOREIGN).any():
            raise StoreError(
                f"view {self.view.name!r}",
                "has a corrupt state in the online store, or one that another plan wrote",
                value=self.view.hash,
                fix=f"run `skewless backfill {self.view.name}`, or correct redis_url",
            )
        partly_applied = np.asarray(letters == PARTLY_SEEN, dtype=np.bool_)
        changed = int((~partly_applied & (letters != SEEN)).sum())
        long_states = np.flatnonzero(letters == LONG)
        if len(long_states):
            self.roll(store, keys.take(pa.array(long_states)), m)
        if partly_applied.any():
            new = self._find_missing(store, keys, events, entity, partly_applied)
            rest = events.take(new)
            changed += self._append(store, state_keys.take(pa.array(new)), rest, m, marker) if len(new) else 0
        return changed

    def _find_missing(
        self, store: OnlineStore, keys: pa.Array, events: ViewEvents, entity: Int64Array, partly_applied: BoolArray
    ) -> Int64Array:
        """Return the indices of events that partly updated states still lack: batch bounds may differ after a retry."""
        indices = np.flatnonzero(partly_applied)
        slots = self.codec.unpack(store.get(keys.take(pa.array(indices)))).slots
        applied = np.full(len(keys), -1, dtype=np.int64)
        own = slots.partition == events.origin.partition[0]
        applied[indices[slots.entity[own]]] = slots.seq[own]
        return np.flatnonzero(partly_applied[entity] & (events.origin.seq > applied[entity]))
