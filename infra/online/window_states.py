"""Reading windowed views: which states hold them, and what these say at one time."""

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
from skewless.contract.windows.reading import WindowReader
from skewless.contract.windows.tiles import AppliedPositions, Tiles
from skewless.contract.windows.view import WindowView
from skewless.infra.log.generations import ViewVersion, read_pointer
from skewless.infra.online.marker_history import MarkerStatus


@dataclass(frozen=True, kw_only=True)
class StateProgress:
    """Up to where the states that a read found had been applied.

    Args:
        generation: of the states; 0: unknown, nothing was read.
        slots: per entity row and log partition that ever touched the entity, the last applied position.
    """

    generation: int
    slots: AppliedPositions


@dataclass(frozen=True, kw_only=True)
class ViewReads:
    """What each view answered, what each windowed view rests on, and how many rows and states were damaged."""

    reads: Mapping[str, ViewRead]
    applied: Mapping[str, StateProgress]
    damaged: int = 0


class WindowStates:
    """The states of the windowed views of a plan.

    Which generation is read is told by ``take``; before that a view is UNAVAILABLE.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        self._plan = plan
        self._means = {view.name: _StateReader(plan.project, view) for view in plan.windows}

    @property
    def pointers(self) -> list[bytes]:
        """Return the keys that say which generations are read, in the order of the plan's views."""
        return [generation_key(self._plan.project, view) for view in self._plan.windows]

    def take(self, texts: Sequence[bytes | None]) -> list[str]:
        """Take up the generations that stand under ``pointers``; return the views that have none."""
        for means, text in zip(self._means.values(), texts, strict=True):
            if text is not None:
                means.take(text)
        return [name for name, means in self._means.items() if means.keys is None]

    @property
    def generations(self) -> list[bytes]:
        """Return the names under which servers note which generations they read."""
        return [
            lease_key(self._plan.project, means.view, means.generation)
            for means in self._means.values()
            if means.keys is not None
        ]

    @property
    def markers(self) -> list[str]:
        """Return the markers to be read with the states: of each view and partition."""
        return list(chain.from_iterable(means.markers for means in self._means.values()))

    @property
    def marker_lists(self) -> list[list[str]]:
        """Return the markers of each view, in the order of the plan."""
        return [means.markers for means in self._means.values()]

    def markers_of(self, view: str) -> list[str]:
        """Return the markers that vouch for a view; none while nobody knows which states hold it."""
        return self._means[view].markers

    def names(self, columns: Mapping[str, Sequence[KeyValue | None]], n: int) -> list[bytes | None]:
        """Return the keys of the states of n entity rows: those of the first view, then of the second, and so on."""
        found: list[bytes | None] = []
        for means in self._means.values():
            found += [None] * n if means.keys is None else means.keys.encode_columns(columns)
        return found

    def read(
        self,
        names: Sequence[bytes | None],
        states: Sequence[bytes | None],
        standing: MarkerStatus,
        t: int,
    ) -> ViewReads:
        """Return the features at time ``t``, a whole millisecond, from the states under ``names``.

        Args:
            standing: what the markers say that were read with the states.
        """
        damaged = 0
        reads: dict[str, ViewRead] = {}
        applied: dict[str, StateProgress] = {}
        n = len(names) // max(len(self._means), 1)
        for i, (name, means) in enumerate(self._means.items()):
            lost = bool(standing.lost) and not standing.lost.isdisjoint((means.view.hash, *means.markers))
            if means.keys is None or lost:
                reads[name] = empty_read(means.view, n, available=False)
                applied[name] = StateProgress(generation=0, slots=AppliedPositions.empty())
            else:
                part = slice(i * n, (i + 1) * n)
                watermark = standing.watermark(means.markers)
                tiles, sound = means.codec.unpack_sound(states[part])
                damaged += n - int(sound.sum())
                reads[name], applied[name] = means.read(names[part], tiles, sound, t, min(t, watermark))
        return ViewReads(reads=reads, applied=applied, damaged=damaged)

    def unavailable(self, n: int) -> ViewReads:
        """Return reads for a store that did not answer."""
        nothing = StateProgress(generation=0, slots=AppliedPositions.empty())
        return ViewReads(
            reads={name: empty_read(means.view, n, available=False) for name, means in self._means.items()},
            applied=dict.fromkeys(self._means, nothing),
        )


class _StateReader:
    """What one view is read with."""

    def __init__(self, project: str, view: WindowView) -> None:
        self.view = view
        self.generation = 0
        self.keys: KeyCodec | None = None
        self.markers: list[str] = []
        self._project = project
        self.codec = TileCodec(view)
        self._reader = WindowReader(view)
        self._text = b""

    def take(self, text: bytes) -> None:
        if text == self._text:
            return
        self._text = text
        told = read_pointer(text)
        if told is None:
            return  # damaged: what was known is as it was
        self.generation, partitions = told
        self.markers = [window_marker(self._project, self.view, self.generation, name) for name in partitions]
        self.keys = KeyCodec(self._project, self.view, self.generation)

    def read(
        self, names: Sequence[bytes | None], tiles: Tiles, sound: BoolArray, t: int, known_to: int
    ) -> tuple[ViewRead, StateProgress]:
        features = self._reader.features(tiles, t)
        times: Int64Array = np.full(len(names), t, dtype=np.int64)
        answered: BoolArray = (tiles.m <= t) & sound
        keyed = np.fromiter((name is not None for name in names), dtype=np.bool_, count=len(names))
        read = build_window_read(
            self.view, features, times, answered, keyed, np.full(len(names), known_to, dtype=np.int64)
        )
        return read, StateProgress(generation=self.generation, slots=tiles.slots)


def lease_key(project: str, view: ViewVersion, generation: int) -> bytes:
    """Return the key that stands while some server reads a generation."""
    return f"sk:{project}:{view.hash}.{generation}:read".encode()
