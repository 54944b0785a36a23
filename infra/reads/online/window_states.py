"""The states of windowed views: servers compute features from them, workers append to them and roll them up.

A state has a generation; a backfill builds the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from skewless.contract.columns import FeatureRef
from skewless.contract.errors import StoreError
from skewless.contract.keys import KeyCodec, KeyValue, generation_key
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead, empty_read
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.window_events import ViewEvents
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.state_layout import StateLayout
from skewless.contract.windows.tiles import Roller, Tiles
from skewless.contract.windows.view import WindowView
from skewless.contract.windows.window_reader import WindowReader
from skewless.infra.log.generations import ViewVersion
from skewless.infra.reads.online.marker_history import MarkerStatus
from skewless.infra.reads.online.port import FOREIGN, LONG, PARTLY_SEEN, SEEN, OnlineStore
from skewless.infra.reads.online.state_reader import StateProgress, StateReader

_FEW_STATES = 128  # decoded together; the arrays of more leave the cache and cause page faults


@dataclass(frozen=True, kw_only=True)
class ViewReads:
    """The rows of each view, the positions that each windowed view includes, and the number of corrupt values."""

    reads: Mapping[str, ViewRead]
    applied: Mapping[str, StateProgress]
    corrupt: int = 0


class WindowStates:
    """Reads the states of the windowed views of a plan.

    ``load_generations`` loads the pointers to the generations; before that a view is UNAVAILABLE.

    Attributes:
        markers: names of the markers to read with the states, for each view and partition.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._plan = plan
        self._readers = {view.name: StateReader(plan.project, view) for view in plan.windows}
        self.markers: list[str] = []
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, view in enumerate(plan.windows):
            groups.setdefault(view.structure, []).append(i)
        # The places of views of one structure in the plan, and what decodes and computes them together.
        self._groups = [
            (places, TileCodec(*(plan.windows[i] for i in places)), WindowReader(plan.windows[places[0]]))
            for places in groups.values()
        ]

    @property
    def pointers(self) -> list[bytes]:
        """Return the keys of the pointers to generations, in the order of the plan's views."""
        return [generation_key(self._plan.project, view) for view in self._plan.windows]

    def load_generations(self, texts: Sequence[bytes | None]) -> list[str]:
        """Load the generations from the values of ``pointers``; return the views that have none."""
        for reader, text in zip(self._readers.values(), texts, strict=True):
            if text is not None:
                reader.load_pointer(text)
        self.markers = list(chain.from_iterable(reader.markers for reader in self._readers.values()))
        return [name for name, reader in self._readers.items() if reader.keys is None]

    @property
    def generations(self) -> list[bytes]:
        """Return the keys under which servers mark the generations that they read."""
        return [
            lease_key(self._plan.project, reader.view, reader.generation)
            for reader in self._readers.values()
            if reader.keys is not None
        ]

    def markers_of(self, view: str) -> list[str]:
        """Return the names of a view's markers; empty while its generation is unknown."""
        return self._readers[view].markers

    def reader_of(self, view: str) -> StateReader:
        """Return the reader of one view."""
        return self._readers[view]

    def names(self, columns: Mapping[str, Sequence[KeyValue | None]], n: int) -> list[bytes | None]:
        """Return the keys of the states of n entity rows: for the first view, then for the second, and so on."""
        keys: list[bytes | None] = []
        for reader in self._readers.values():
            keys += [None] * n if reader.keys is None else reader.keys.encode_columns(columns)
        return keys

    @property
    def columns(self) -> list[FeatureRef]:
        """Return the features of the columns of ``read_together``."""
        views = [self._plan.windows[i] for places, _, _ in self._groups for i in places]
        return [FeatureRef(group=view.name, name=item.name) for view in views for item in view.aggregates]

    def read_together(
        self, names: Sequence[bytes | None], states: Sequence[bytes | None], marker_status: MarkerStatus, t: int
    ) -> tuple[list[Floats], dict[str, StateProgress]] | None:
        """Return the features of all views, in blocks of columns, and their progress, as ``read`` does.

        None: there are too many states, or one of them or a view cannot be read.
        """
        if marker_status.lost or len(names) > _FEW_STATES or None in names:
            return None
        readers = list(self._readers.values())
        n, blocks, applied = len(names) // len(readers), [], {}
        for places, codec, reader in self._groups:
            try:
                tiles = codec.unpack([state for i in places for state in states[i * n : (i + 1) * n]])
            except StoreError:
                return None
            if max(tiles.m.tolist(), default=t) > t:
                return None
            features = reader.features(tiles, t)
            for i, place in enumerate(places):
                part, own = slice(i * n, (i + 1) * n), readers[place]
                slots = tiles.slots if len(places) == 1 else tiles.slots.of_entities(part.start, part.stop)
                blocks.append(features[part])
                applied[own.view.name] = StateProgress(generation=own.generation, slots=slots)
        return blocks, applied

    def read(
        self,
        names: Sequence[bytes | None],
        states: Sequence[bytes | None],
        marker_status: MarkerStatus,
        t: int | Int64Array,
    ) -> ViewReads:
        """Return the features at time ``t``, a multiple of one millisecond, from states.

        Args:
            names: the keys from ``names``.
            states: the value of each key; None: no value.
            marker_status: the status of the markers that were read with the states.
            t: microseconds; one time, or one for each entity row, shape ``(n,)``.
        """
        corrupt = 0
        reads: dict[str, ViewRead] = {}
        applied: dict[str, StateProgress] = {}
        n = len(names) // max(len(self._readers), 1)
        for i, (name, reader) in enumerate(self._readers.items()):
            if reader.is_lost(marker_status):
                reads[name] = empty_read(reader.view, n, available=False)
                applied[name] = StateProgress()
            else:
                part = slice(i * n, (i + 1) * n)
                watermark = marker_status.watermark(reader.markers)
                tiles, is_valid = reader.codec.unpack_sound(states[part])
                corrupt += n - int(is_valid.sum())
                features = reader.windows.features(tiles, t)
                reads[name], applied[name] = reader.build_read(
                    names[part], features, tiles.m, is_valid, t, watermark, tiles.slots
                )
        return ViewReads(reads=reads, applied=applied, corrupt=corrupt)

    def unavailable(self, n: int) -> ViewReads:
        """Return the reads for a store that did not reply."""
        return ViewReads(
            reads={name: empty_read(reader.view, n, available=False) for name, reader in self._readers.items()},
            applied=dict.fromkeys(self._readers, StateProgress()),
        )


def lease_key(project: str, view: ViewVersion, generation: int) -> bytes:
    """Return the key that exists while a server reads a generation."""
    return f"sk:{project}:{view.hash}.{generation}:read".encode()


class StateView:
    """One generation of the states of a windowed view, with its codecs.

    Every method that writes raises StoreError when the store rejects the command or is unavailable.
    """

    def __init__(self, project: str, view: WindowView, generation: int) -> None:
        self.view = view
        self.generation = generation
        self.keys = KeyCodec(project, view, generation)
        self.codec = TileCodec(view)
        self.layout = StateLayout(view)
        self.roller = Roller(view)

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
