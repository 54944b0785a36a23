"""Reads windowed views: finds the generation of their states, and computes features from them at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from skewless.contract.keys import KeyCodec, KeyValue, generation_key, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.reads import build_window_read
from skewless.contract.rows import ViewRead, empty_read
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.tiles import AppliedPositions, Tiles, WindowReader
from skewless.contract.windows.view import WindowView
from skewless.infra.log.generations import ViewVersion, read_pointer
from skewless.infra.online.marker_history import MarkerStatus


@dataclass(frozen=True, kw_only=True)
class StateProgress:
    """The log positions that a read of states includes.

    Args:
        generation: of the states; 0: unknown, nothing was read.
        slots: per entity row and log partition with events of the entity, the last applied position.
    """

    generation: int
    slots: AppliedPositions


@dataclass(frozen=True, kw_only=True)
class ViewReads:
    """The rows of each view, the positions that each windowed view includes, and the number of corrupt values."""

    reads: Mapping[str, ViewRead]
    applied: Mapping[str, StateProgress]
    corrupt: int = 0


class WindowStates:
    """Reads the states of the windowed views of a plan.

    ``load_generations`` loads the pointers to the generations; before that a view is UNAVAILABLE.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._plan = plan
        self._readers = {view.name: _StateReader(plan.project, view) for view in plan.windows}

    @property
    def pointers(self) -> list[bytes]:
        """Return the keys of the pointers to generations, in the order of the plan's views."""
        return [generation_key(self._plan.project, view) for view in self._plan.windows]

    def load_generations(self, texts: Sequence[bytes | None]) -> list[str]:
        """Load the generations from the values of ``pointers``; return the views that have none."""
        for reader, text in zip(self._readers.values(), texts, strict=True):
            if text is not None:
                reader.load_pointer(text)
        return [name for name, reader in self._readers.items() if reader.keys is None]

    @property
    def generations(self) -> list[bytes]:
        """Return the keys under which servers mark the generations that they read."""
        return [
            lease_key(self._plan.project, reader.view, reader.generation)
            for reader in self._readers.values()
            if reader.keys is not None
        ]

    @property
    def markers(self) -> list[str]:
        """Return the names of the markers to read with the states, for each view and partition."""
        return list(chain.from_iterable(reader.markers for reader in self._readers.values()))

    @property
    def marker_lists(self) -> list[list[str]]:
        """Return the markers of each view, in the order of the plan."""
        return [reader.markers for reader in self._readers.values()]

    def markers_of(self, view: str) -> list[str]:
        """Return the names of a view's markers; empty while its generation is unknown."""
        return self._readers[view].markers

    def names(self, columns: Mapping[str, Sequence[KeyValue | None]], n: int) -> list[bytes | None]:
        """Return the keys of the states of n entity rows: for the first view, then for the second, and so on."""
        keys: list[bytes | None] = []
        for reader in self._readers.values():
            keys += [None] * n if reader.keys is None else reader.keys.encode_columns(columns)
        return keys

    def read(
        self,
        names: Sequence[bytes | None],
        states: Sequence[bytes | None],
        marker_status: MarkerStatus,
        t: int,
    ) -> ViewReads:
        """Return the features at time ``t``, a multiple of one millisecond, from states.

        Args:
            names: the keys from ``names``.
            states: the value of each key; None: no value.
            marker_status: the status of the markers that were read with the states.
            t: microseconds.
        """
        corrupt = 0
        reads: dict[str, ViewRead] = {}
        applied: dict[str, StateProgress] = {}
        n = len(names) // max(len(self._readers), 1)
        for i, (name, reader) in enumerate(self._readers.items()):
            # A lost marker of any partition makes the whole view UNAVAILABLE: its sums would lack events.
            lost = bool(marker_status.lost) and not marker_status.lost.isdisjoint((reader.view.hash, *reader.markers))
            if reader.keys is None or lost:
                reads[name] = empty_read(reader.view, n, available=False)
                applied[name] = StateProgress(generation=0, slots=AppliedPositions.empty())
            else:
                part = slice(i * n, (i + 1) * n)
                watermark = marker_status.watermark(reader.markers)
                tiles, is_valid = reader.codec.unpack_sound(states[part])
                corrupt += n - int(is_valid.sum())
                reads[name], applied[name] = reader.read(names[part], tiles, is_valid, t, min(t, watermark))
        return ViewReads(reads=reads, applied=applied, corrupt=corrupt)

    def unavailable(self, n: int) -> ViewReads:
        """Return the reads for a store that did not reply."""
        no_progress = StateProgress(generation=0, slots=AppliedPositions.empty())
        return ViewReads(
            reads={name: empty_read(reader.view, n, available=False) for name, reader in self._readers.items()},
            applied=dict.fromkeys(self._readers, no_progress),
        )


class _StateReader:
    """Reads the states of one view."""

    def __init__(self, project: str, view: WindowView) -> None:
        self.view = view
        self.generation = 0
        self.keys: KeyCodec | None = None
        self.markers: list[str] = []
        self._project = project
        self.codec = TileCodec(view)
        self._reader = WindowReader(view)
        self._text = b""

    def load_pointer(self, text: bytes) -> None:
        if text == self._text:
            return
        self._text = text
        pointer = read_pointer(text)
        if pointer is None:
            return  # the pointer is corrupt, so the last known generation stays
        self.generation, partitions = pointer
        self.markers = [window_marker(self._project, self.view, self.generation, name) for name in partitions]
        self.keys = KeyCodec(self._project, self.view, self.generation)

    def read(
        self, names: Sequence[bytes | None], tiles: Tiles, is_valid: BoolArray, t: int, known_to: int
    ) -> tuple[ViewRead, StateProgress]:
        features = self._reader.features(tiles, t)
        times: Int64Array = np.full(len(names), t, dtype=np.int64)
        # A state that is rolled up beyond t no longer has the milliseconds before t (SEMANTICS 3.5).
        is_answered: BoolArray = (tiles.m <= t) & is_valid
        has_key = np.fromiter((name is not None for name in names), dtype=np.bool_, count=len(names))
        read = build_window_read(
            self.view, features, times, is_answered, has_key, np.full(len(names), known_to, dtype=np.int64)
        )
        return read, StateProgress(generation=self.generation, slots=tiles.slots)


def lease_key(project: str, view: ViewVersion, generation: int) -> bytes:
    """Return the key that exists while a server reads a generation."""
    return f"sk:{project}:{view.hash}.{generation}:read".encode()
