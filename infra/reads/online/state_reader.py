"""Reads the states of one windowed view, in the generation that its pointer names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skewless.contract.keys import KeyCodec, window_marker
from skewless.contract.reads import build_window_read
from skewless.contract.rows import ViewRead
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.contract.windows.window_reader import WindowReader
from skewless.infra.log.generations import read_pointer
from skewless.infra.reads.online.marker_history import MarkerStatus


class StateProgress(NamedTuple):
    """The log positions that a read of states includes.

    Args:
        generation: of the states; 0: unknown, nothing was read.
        slots: per entity row and log partition with events of the entity, the last applied position.
    """

    generation: int = 0
    slots: AppliedPositions = AppliedPositions.empty()


class StateReader:
    """Reads the states of one view.

    Attributes:
        generation: of the states; 0: unknown.
        keys: encodes the keys of its states; None: the generation is unknown.
        markers: names of the markers of its log partitions.
        windows: computes its features.
    """

    def __init__(self, project: str, view: WindowView) -> None:
        self.view = view
        self.generation = 0
        self.keys: KeyCodec | None = None
        self.markers: list[str] = []
        self._project = project
        self.codec = TileCodec(view)
        self.windows = WindowReader(view)
        self._text = b""

    def load_pointer(self, text: bytes) -> None:
        """Use the generation of a pointer; a corrupt pointer changes nothing."""
        if text == self._text:
            return
        self._text = text
        pointer = read_pointer(text)
        if pointer is None:
            return  # the pointer is corrupt, so the last known generation stays
        self.generation, partitions = pointer
        self.markers = [window_marker(self._project, self.view, self.generation, name) for name in partitions]
        self.keys = KeyCodec(self._project, self.view, self.generation)

    def is_lost(self, status: MarkerStatus) -> bool:
        """Return whether the view is UNAVAILABLE: a lost marker of any partition means that its sums lack events."""
        return self.keys is None or not status.lost.isdisjoint((self.view.hash, *self.markers))

    def build_read(
        self,
        names: Sequence[bytes | None],
        features: Floats,
        m: Int64Array,
        is_valid: BoolArray,
        t: int | Int64Array,
        watermark: int,
        slots: AppliedPositions,
    ) -> tuple[ViewRead, StateProgress]:
        """Return the read of entities at time ``t``, and the positions that their features include.

        Args:
            names: keys of the states; None: the entity has no complete key.
            features: from their records.
            m: time up to which the state of each is rolled up, microseconds.
            is_valid: which states could be read.
            t: as for ``WindowReader.features``.
            watermark: of the view, microseconds; 0: unknown.
            slots: the positions.
        """
        times: Int64Array = np.full(len(names), t, dtype=np.int64)
        # A state that is rolled up beyond t no longer has the milliseconds before t (SEMANTICS 3.5).
        is_answered: BoolArray = (m <= t) & is_valid
        has_key = np.fromiter((name is not None for name in names), dtype=np.bool_, count=len(names))
        read = build_window_read(self.view, features, times, is_answered, has_key, np.minimum(times, watermark))
        return read, StateProgress(generation=self.generation, slots=slots)
