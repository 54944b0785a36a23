"""The states of windowed views in Redis: appended to once for each log position, and rolled up when they grow long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray
from skewless.contract.window_events import ViewEvents
from skewless.contract.windows.state_layout import Origin
from skewless.contract.windows.tiles import Tiles
from skewless.infra.online.address import display_url
from skewless.infra.online.failures import translated
from skewless.infra.online.markers import Markers
from skewless.infra.online.port import Binaries, Mark
from skewless.infra.online.scan import delete_keys
from skewless.infra.online.servers import Last, Servers
from skewless.infra.online.state_view import StateView

_APPEND = Path(__file__).with_name("tile_append.lua").read_text()
_SWAP = Path(__file__).with_name("tile_swap.lua").read_text()
_LONG, _STOOD, _PART, _FOREIGN = b"RSPF"
_SWAPPED = ord("Y")


class TileStore:
    """The writing side of windowed views. Every method raises StoreError when the store refuses or is away.

    Args:
        servers: where the states are.
        url: the address, for people.
    """

    def __init__(self, servers: Servers, url: str) -> None:
        self._servers = servers
        self._url = url
        self._append: Any = servers.client.register_script(_APPEND)
        self._swap: Any = servers.client.register_script(_SWAP)
        self._markers = Markers(servers, display_url(url))

    def append(self, states: StateView, events: ViewEvents, m: int, marker: tuple[str, int | None]) -> int:
        """Add events of one partition to the states of their entities; return how many states were changed.

        Events at positions that a state has seen are left out, so that it may be done again; but those of one
        partition must come in the order of their positions.

        Args:
            m: states that have grown long are rolled up to this moment, microseconds.
            marker: name and position of the marker that says how far the partition was applied. A server where it
                is further back has lost writes: it refuses, since it would never take what is missing.
        """
        if not len(events.rows):
            return 0
        named = states.keys.pack({name: events.keys[name].combine_chunks() for name in events.keys.column_names})
        with translated(self._url):
            return self._appended(states, named, events, m, self._markers.guard(*marker))

    def _appended(self, states: StateView, named: pa.Array, events: ViewEvents, m: int, guard: Last) -> int:
        words = named.dictionary_encode()
        keys = words.dictionary
        entity = words.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        tiles = Tiles.of_events(states.layout, len(keys), entity, events.origin, events.words, events.hashes)
        letters = self._letters(self._append, keys, states.codec.updates(tiles), guard)
        if (letters == _FOREIGN).any():
            raise self._foreign(states)
        partly = letters == _PART
        changed = int((~partly & (letters != _STOOD)).sum())
        long = np.flatnonzero(letters == _LONG)
        if len(long):
            self.roll(states, keys.take(pa.array(long)), m)
        if partly.any():
            changed += self._rest(states, keys, named, events, entity, partly, m, guard)
        return changed

    def _rest(
        self,
        states: StateView,
        keys: pa.Array,
        named: pa.Array,
        events: ViewEvents,
        entity: Any,  # noqa: ANN401 - int64 array
        partly: BoolArray,
        m: int,
        guard: Last,
    ) -> int:
        """Append to states that have seen some of their events the others: batches may have other bounds than then."""
        places = np.flatnonzero(partly)
        known = states.codec.unpack(self._servers.read(keys.take(pa.array(places))))
        applied = np.full(len(keys), -1, dtype=np.int64)
        own = known.slots.partition == events.origin.partition[0]
        applied[places[known.slots.entity[own]]] = known.slots.seq[own]
        new = np.flatnonzero(partly[entity] & (events.origin.seq > applied[entity]))
        origin = events.origin
        rest = ViewEvents(
            rows=events.rows[new],
            keys=events.keys,
            origin=Origin(ts=origin.ts[new], partition=origin.partition[new], seq=origin.seq[new]),
            words=events.words[:, new],
            hashes=events.hashes[:, new],
        )
        return self._appended(states, named.take(pa.array(new)), rest, m, guard) if len(new) else 0

    def roll(self, states: StateView, keys: pa.Array, m: int) -> int:
        """Roll states up to a moment; return how many; one that changes meanwhile is left for the next time."""
        old = self._servers.read(keys)
        tiles = states.roller.roll(states.codec.unpack(old), m)
        return int(self._swapped(states, keys, old, states.codec.pack(tiles)).sum())

    def create(self, states: StateView, keys: pa.Table, tiles: Tiles) -> None:
        """Write whole states of a generation that nobody reads or appends to yet."""
        named = states.keys.pack({name: keys[name].combine_chunks() for name in keys.column_names})
        packed = states.codec.pack(tiles)
        with translated(self._url):
            # Over what a killed loader left: its number was never given out.
            old = self._servers.read(named)
            if not self._swapped(states, named, old, packed).all():
                raise StoreError(
                    f"view {states.view.name!r}",
                    "is being built by another process too",
                    value=states.generation,
                    fix="run `skewless bootstrap` once at a time",
                )

    def read(self, keys: Binaries) -> list[bytes | None]:
        """Return packed states by their names in Redis; None: there is none."""
        with translated(self._url):
            return self._servers.read(keys)

    def replace(self, states: StateView, keys: pa.Array, old: Sequence[bytes | None], new: pa.Array) -> int:
        """Replace states that are still as they were read; return how many: a repair."""
        with translated(self._url):
            return int(self._swapped(states, keys, old, new).sum())

    def marker(self, name: str) -> int | None:
        """Return the position up to which a partition has surely been applied, or None."""
        with translated(self._url):
            return self._markers.get(name)

    def peek_markers(self, names: Sequence[str]) -> list[int | None]:
        """Return what ``marker`` would of each name, from one round trip; whoever sets one asks ``marker`` before."""
        return [None if mark is None else mark.position for mark in self.peek_marks(names)]

    def peek_marks(self, names: Sequence[str]) -> list[Mark | None]:
        """Return how far partitions were surely applied, and up to when all that had arrived was."""
        with translated(self._url):
            return self._markers.peek(names)

    def refresh_markers(self, marks: Mapping[str, Mark]) -> None:
        """Record new watermarks of markers that stand where they should; refused where one is further back."""
        if marks:
            with translated(self._url):
                self._markers.refresh(marks)

    def set_markers(self, marks: Mapping[str, Mark], expected: Mapping[str, int | None]) -> None:
        """Record how far partitions were applied.

        It is refused where a marker is further back than expected, or a server is another by now.
        """
        if marks:
            with translated(self._url):
                self._markers.set(marks, expected)

    def publish(self, key: bytes, text: bytes) -> None:
        """Put a note where servers look."""
        with translated(self._url):
            self._servers.client.set(key, text)

    def exists(self, key: bytes) -> bool:
        """Say whether a key stands."""
        with translated(self._url):
            return bool(self._servers.client.exists(key))

    def delete(self, prefix: str) -> int:
        """Delete every key that begins with a prefix; return how many."""
        with translated(self._url):
            return sum(delete_keys(client, prefix) for client in self._servers.masters())

    def _letters(self, script: Any, keys: Binaries, arguments: Binaries, guard: Last | None = None) -> Any:  # noqa: ANN401 - uint8 array
        letters = np.zeros(len(keys), dtype=np.uint8)
        for answer in self._servers.call(script, keys, arguments, guard):
            if not answer.reply:
                raise self._markers.lost()
            letters[np.asarray(answer.places)] = np.frombuffer(answer.reply, dtype=np.uint8)
        return letters

    def _swapped(self, states: StateView, keys: pa.Array, old: Sequence[bytes | None], new: pa.Array) -> BoolArray:
        arguments = []
        for before, after in zip(old, new.to_pylist(), strict=True):
            head = states.codec.head(before)
            size, length = (len(each).to_bytes(8, "little") for each in (before or b"", head))
            arguments.append(size + length + head + after)
        return np.asarray(self._letters(self._swap, keys, arguments) == _SWAPPED, dtype=np.bool_)

    def _foreign(self, states: StateView) -> StoreError:
        return StoreError(
            f"view {states.view.name!r}",
            "meets a state in this Redis that another plan wrote",
            value=states.view.hash,
            fix=f"run `skewless bootstrap {states.view.name}`, or point at the right Redis",
        )
