"""Parity of windowed views: online states against the log at the very positions that they name (SEMANTICS 7.1).

A state says up to where each partition was applied to it, so it can be computed again whatever a worker does
meanwhile. What it may lack is told by the marker that came in the same round trip: all before that was applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.keys import KeyCodec, generation_key, window_marker
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.reading import WindowReader
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.infra.log.generations import read_pointer
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.key_samples import sample_event_keys
from skewless.infra.offline.views import OfflineViews
from skewless.infra.offline.window_events import LogPartition
from skewless.infra.offline.window_positions import applied_matrix, find_touched_rows, rebuild_states
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import BlockingOnlineReader, OnlineStore
from skewless.infra.online.state_view import StateView
from skewless.infra.streams.state_writer import PENDING_US
from skewless.validation.bit_comparison import equal_bits
from skewless.validation.parity_checker import BATCH_KEYS, ParityResult, entity_of
from skewless.validation.parity_report import Mismatch, ParityFault

_TRIES = 3
_CLOCKS_APART_US = 60_000_000  # what clocks of two machines may be apart; more is no clock


@dataclass(frozen=True, kw_only=True)
class _StateBatch:
    """States that were read in one round trip; ``markers``: None where the view could not answer."""

    names: list[bytes]
    stored: list[bytes | None]
    markers: Mapping[str, int] | None
    t: int


@dataclass(frozen=True, kw_only=True)
class _StateTotals:
    """What the states of all entities hold.

    Args:
        sound: which of them can be read.
        early: which were rolled up to a moment that this machine's clock has not reached: predictions are refused.
        features: as predictions would have seen them, shape ``(n, n_features)``.
    """

    sound: BoolArray
    early: BoolArray
    slots: AppliedPositions
    features: Floats


@dataclass(frozen=True, kw_only=True)
class WindowParity:
    """Compares one windowed view."""

    project: str
    view: WindowView
    views: OfflineViews
    reader: BlockingOnlineReader
    marker_history: MarkerHistory
    clock: Clock

    def sample(self, n: int, seed: int) -> pa.Table:
        """See ``ParityChecker``."""
        return sample_event_keys(self.views.connection, self.view, self.views.log_partitions(self.view), n, seed)

    def check(self, keys: pa.Table) -> ParityResult:
        """See ``ParityChecker``."""
        reads = [self._read(keys.slice(first, BATCH_KEYS)) for first in range(0, keys.num_rows, BATCH_KEYS)]
        counts = [len(read.stored) for read in reads]
        checked = ParityResult(
            keys=keys,
            names=[name for read in reads for name in read.names],
            stored=[state for read in reads for state in read.stored],
            available=np.repeat([read.markers is not None for read in reads], counts),
            faults={},
            at_us=max(read.t for read in reads),
        )
        t = np.repeat(np.array([read.t for read in reads], dtype=np.int64), counts)
        # After the states: whatever they name stands in the log by now.
        comparison = _StateComparison(self.view, self.views, checked, _held(self.view, reads), t)
        markers = [read.markers or {} for read in reads]
        upto = [[each.get(part.partition, -1) for part in comparison.parts] for each in markers]
        return comparison.judged(np.repeat(np.array(upto, dtype=np.int64).reshape(len(reads), -1), counts, axis=0))

    def repair(self, checked: ParityResult, store: OnlineStore) -> None:
        """See ``ParityChecker``; the log is read to its end, so that no event which was applied is left out."""
        rows = checked.repairable
        if not rows:
            return
        parts, m = self.views.log_partitions(self.view), self.clock.now_us() - PENDING_US
        states = StateView.of(self.project, self.view, 0)
        keys = checked.keys.take(pa.array(rows))
        for places, tiles in rebuild_states(self.views.connection, self.view, parts, keys, m):
            chosen = [rows[place] for place in places.tolist()]
            names = pa.array([checked.names[row] for row in chosen], pa.large_binary())
            old = [checked.stored[row] for row in chosen]
            states.replace(store, names, old, states.codec.pack(tiles))

    def _read(self, keys: pa.Table) -> _StateBatch:
        pointer = generation_key(self.project, self.view)
        columns = {name: keys[name].combine_chunks() for name in keys.column_names}
        for _ in range(_TRIES):
            text = self.reader.get_with_markers([pointer], [])[0][0]
            told = None if text is None else read_pointer(text)
            if told is None:
                break
            generation, partitions = told
            names = KeyCodec(self.project, self.view, generation).pack(columns).to_pylist()
            marks = [window_marker(self.project, self.view, generation, part) for part in partitions]
            values, stood = self.reader.get_with_markers([pointer, *names], marks)
            if values[0] == text:  # else another generation has become the one that is read
                found = dict(zip(partitions, stood, strict=True))
                lost = self.marker_history.find_lost(marks, stood)
                markers = None if lost else {part: mark.position for part, mark in found.items() if mark is not None}
                return _StateBatch(names=names, stored=values[1:], markers=markers, t=self._now())
        return _StateBatch(names=[b""] * keys.num_rows, stored=[None] * keys.num_rows, markers=None, t=self._now())

    def _now(self) -> int:
        # Behind the read: no state that was read was rolled up later than that.
        return self.clock.now_us() // MILLISECOND * MILLISECOND


class _StateComparison:
    """One comparison of states with the log."""

    def __init__(
        self, view: WindowView, views: OfflineViews, checked: ParityResult, held: _StateTotals, t: Int64Array
    ) -> None:
        self._view, self._views, self._checked, self._held, self._t = view, views, checked, held, t
        self.parts = views.log_partitions(view)
        ends = views.log_ends(view)
        self._ends = np.array([ends.get(part.partition, -1) for part in self.parts], dtype=np.int64)
        n = checked.keys.num_rows
        self._applied, known = applied_matrix(held.slots, self.parts, n)
        self._ahead: BoolArray = np.asarray((self._applied > self._ends).any(axis=1), dtype=np.bool_)
        self._ahead[held.slots.entity[~known]] = True
        self._faults: dict[int, Mismatch] = {}

    def judged(self, upto: Int64Array) -> ParityResult:
        """Return what was read with its faults.

        Args:
            upto: per row and part, the position up to which all had surely been applied.
        """
        held = self._held
        there = self._checked.available & ~held.early
        foreign = bool((upto > self._ends).any())
        for row in np.flatnonzero(there & ~held.sound).tolist():
            self._add(row, ParityFault.DAMAGED, detail=_damage(self._checked.stored[row]))
        for row in np.flatnonzero(there & held.sound & self._ahead).tolist():
            self._add(row, ParityFault.AHEAD, detail=self._excess(row))
        rows = np.flatnonzero(there & held.sound & ~self._ahead)
        self._compare_values(rows)
        for number, part in enumerate(self.parts):
            self._look_for_lost(rows, number, part, upto[:, number])
        found = {row: replace(fault, repairable=not foreign) for row, fault in sorted(self._faults.items())}
        return replace(self._checked, available=there, faults=found)

    def _compare_values(self, rows: Int64Array) -> None:
        if not len(rows):
            return
        entities = self._entities(rows)
        log = self._views.join.read_applied(self._view, self.parts, entities, self._applied[rows])
        expected = np.stack([log.values[column.name] for column in self._view.features], axis=1)
        online = self._held.features[rows]
        different = ~equal_bits(online, expected)
        for place in np.flatnonzero(different.any(axis=1)).tolist():
            feature = int(different[place].argmax())
            name = self._view.aggregates[feature].name
            sides = [
                None if np.isnan(side) else float(side) for side in (online[place, feature], expected[place, feature])
            ]
            self._add(int(rows[place]), ParityFault.VALUE, feature=name, online=sides[0], log=sides[1])

    def _look_for_lost(self, rows: Int64Array, number: int, part: LogPartition, upto: Int64Array) -> None:
        after = self._applied[:, number]
        upto = np.minimum(upto, self._ends[number])
        asked = np.array([row for row in rows.tolist() if row not in self._faults and after[row] < upto[row]], np.int64)
        if not len(asked):
            return
        entities = self._entities(asked)
        lacks = find_touched_rows(self._views.connection, self._view, part, entities, after[asked], upto[asked])
        for row in asked[lacks].tolist():
            absent = self._checked.stored[row] is None
            detail = f"all of {part.partition} up to {upto[row]} had been applied"
            self._add(row, ParityFault.ABSENT if absent else ParityFault.LOST, detail=detail)

    def _entities(self, rows: Int64Array) -> pa.Table:
        keys = self._checked.keys.take(pa.array(rows))
        return keys.append_column(TIME, pa.array(self._t[rows]))

    def _excess(self, row: int) -> str:
        over = np.flatnonzero(self._applied[row] > self._ends)
        if not len(over):
            return "it names a partition that the log does not have"
        part = int(over[0])
        return f"{self.parts[part].partition} ends at {self._ends[part]}"

    def _add(
        self,
        row: int,
        cause: ParityFault,
        *,
        feature: str | None = None,
        online: object = None,
        log: object = None,
        detail: str = "",
    ) -> None:
        positions = {
            part.partition: int(seq) for part, seq in zip(self.parts, self._applied[row], strict=True) if seq >= 0
        }
        self._faults[row] = Mismatch(
            view=self._view.name,
            cause=cause,
            entity=entity_of(self._checked.keys, row),
            feature=feature,
            online=online,
            log=log,
            positions=positions,
            detail=detail,
        )


def _held(view: WindowView, reads: Sequence[_StateBatch]) -> _StateTotals:
    """Return what the states hold; those that cannot be read count as empty."""
    codec, reader = TileCodec(view), WindowReader(view)
    sounds, early, features, slots = [], [], [], []
    done = 0
    for read in reads:
        tiles, sound = codec.unpack_sound(read.stored)
        sane = sound & (tiles.m <= read.t + _CLOCKS_APART_US)
        tiles = codec.unpack([state if ok else None for state, ok in zip(read.stored, sane.tolist(), strict=True)])
        with np.errstate(all="ignore"):  # damaged words make any number
            features.append(reader.features(tiles, read.t))
        sounds.append(sane)
        early.append(tiles.m > read.t)
        slots.append((tiles.slots.entity + done, tiles.slots.partition, tiles.slots.seq))
        done += len(read.stored)
    entity, partition, seq = (np.concatenate([each[i] for each in slots]) for i in range(3))
    return _StateTotals(
        sound=np.concatenate(sounds),
        early=np.concatenate(early),
        slots=AppliedPositions(entity=entity, partition=partition, first=seq, seq=seq),
        features=np.concatenate(features),
    )


def _damage(state: bytes | None) -> str:
    return f"{len(state or b''):,} bytes that begin with {(state or b'')[:24].hex()}"
