"""Parity of windowed views: compares online states with the log at their applied positions (SEMANTICS 7.1).

A state has the applied position of each partition, so it can be recomputed even while a worker runs. The marker, which
is read in the same round trip, shows missing events: all events up to the marker have been applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.keys import KeyCodec, generation_key, window_marker
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.windows.codec import TileCodec
from skewless.contract.windows.fixed_point import Floats
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.tiles import AppliedPositions
from skewless.contract.windows.view import WindowView
from skewless.contract.windows.window_reader import WindowReader
from skewless.infra.ingest.streams.state_writer import PENDING_US
from skewless.infra.log.generations import read_pointer
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.key_samples import sample_event_keys
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.offline.window_events import LogPartition
from skewless.infra.reads.offline.window_positions import applied_matrix, find_touched_rows, rebuild_states
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.window_states import StateView
from skewless.validation.parity_checker import BATCH_KEYS, ParityChecker, ParityResult, entity_of
from skewless.validation.parity_report import Mismatch, ParityFault
from skewless.validation.rebuilt_predictions import equal_bits

# Reads of a batch until the generation stays the same during one of them.
_MAX_READS = 3
_CLOCKS_APART_US = 60_000_000  # largest plausible difference of two machines' clocks


@dataclass(frozen=True, kw_only=True)
class _StateBatch:
    """States that were read in one round trip; ``markers`` is None if the view was unavailable."""

    names: list[bytes]
    stored: list[bytes | None]
    markers: Mapping[str, int] | None
    t: int


@dataclass(frozen=True, kw_only=True)
class _StateTotals:
    """The decoded states of all entities.

    Args:
        sound: which of them can be decoded.
        early: which were rolled up to a time that this machine's clock has not reached; predictions reject them.
        features: values that predictions would read, shape ``(n, n_features)``.
    """

    sound: BoolArray
    early: BoolArray
    slots: AppliedPositions
    features: Floats


@dataclass(frozen=True, kw_only=True)
class WindowParity(ParityChecker):
    """Compares one windowed view."""

    view: WindowView

    def sample(self, n: int, seed: int) -> pa.Table:
        """See ``ParityChecker``."""
        return sample_event_keys(self.views.connection, self.view, self.views.log_partitions(self.view), n, seed)

    def check(self, keys: pa.Table) -> ParityResult:
        """See ``ParityChecker``."""
        reads = [self._read(keys.slice(first, BATCH_KEYS)) for first in range(0, keys.num_rows, BATCH_KEYS)]
        counts = [len(read.stored) for read in reads]
        result = ParityResult(
            keys=keys,
            names=[name for read in reads for name in read.names],
            stored=[state for read in reads for state in read.stored],
            available=np.repeat([read.markers is not None for read in reads], counts),
            faults={},
            at_us=max(read.t for read in reads),
        )
        t = np.repeat(np.array([read.t for read in reads], dtype=np.int64), counts)
        # The log is read after the states, so it already has all their positions.
        comparison = _StateComparison(self.view, self.views, result, _decode_states(self.view, reads), t)
        markers = [read.markers or {} for read in reads]
        upto = [[each.get(part.partition, -1) for part in comparison.parts] for each in markers]
        return comparison.compare(np.repeat(np.array(upto, dtype=np.int64).reshape(len(reads), -1), counts, axis=0))

    def repair(self, result: ParityResult, store: OnlineStore) -> None:
        """See ``ParityChecker``; the log is read to its end, so that no applied event is skipped."""
        rows = result.repairable
        if not rows:
            return
        # As late as a worker rolls up: a prediction of a time before it would be UNAVAILABLE (SEMANTICS 3.5).
        parts, rolled_up_us = self.views.log_partitions(self.view), self.clock.now_us() - PENDING_US
        states = StateView(self.project, self.view, 0)
        keys = result.keys.take(pa.array(rows))
        for places, tiles in rebuild_states(self.views.connection, self.view, parts, keys, rolled_up_us):
            selected = [rows[place] for place in places.tolist()]
            names = pa.array([result.names[row] for row in selected], pa.large_binary())
            old = [result.stored[row] for row in selected]
            states.replace(store, names, old, states.codec.pack(tiles))

    def _read(self, keys: pa.Table) -> _StateBatch:
        pointer = generation_key(self.project, self.view)
        columns = {name: keys[name].combine_chunks() for name in keys.column_names}
        for _ in range(_MAX_READS):
            text = self.reader.get_with_markers([pointer], [])[0][0]
            pointed = None if text is None else read_pointer(text)
            if pointed is None:
                break
            generation, partitions = pointed
            names = KeyCodec(self.project, self.view, generation).pack(columns).to_pylist()
            marks = [window_marker(self.project, self.view, generation, part) for part in partitions]
            values, marker_values = self.reader.get_with_markers([pointer, *names], marks)
            if values[0] == text:  # otherwise readers have switched to another generation meanwhile
                by_partition = dict(zip(partitions, marker_values, strict=True))
                lost = self.marker_history.find_lost(marks, marker_values)
                markers = (
                    None if lost else {part: mark.position for part, mark in by_partition.items() if mark is not None}
                )
                return _StateBatch(names=names, stored=values[1:], markers=markers, t=self._now())
        return _StateBatch(names=[b""] * keys.num_rows, stored=[None] * keys.num_rows, markers=None, t=self._now())

    def _now(self) -> int:
        # Taken after the read: no read state was rolled up later than this.
        return self.clock.now_us() // MILLISECOND * MILLISECOND


class _StateComparison:
    """One comparison of states with the log."""

    def __init__(
        self, view: WindowView, views: OfflineViews, result: ParityResult, states: _StateTotals, t: Int64Array
    ) -> None:
        self._view, self._views, self._checked, self._decode_states, self._t = view, views, result, states, t
        self.parts = views.log_partitions(view)
        ends = views.log_ends(view)
        self._ends = np.array([ends.get(part.partition, -1) for part in self.parts], dtype=np.int64)
        n = result.keys.num_rows
        self._applied, known = applied_matrix(states.slots, self.parts, n)
        self._ahead: BoolArray = np.asarray((self._applied > self._ends).any(axis=1), dtype=np.bool_)
        self._ahead[states.slots.entity[~known]] = True
        self._faults: dict[int, Mismatch] = {}

    def compare(self, upto: Int64Array) -> ParityResult:
        """Return the result with all mismatches.

        Args:
            upto: per row and part, the position up to which all events had certainly been applied.
        """
        states = self._decode_states
        # Predictions reject an early state too, so it counts as unavailable and not as a mismatch.
        comparable = self._checked.available & ~states.early
        # A marker beyond the log belongs to another log. A repair would mix both, so nothing is repaired.
        is_other_log = bool((upto > self._ends).any())
        for row in np.flatnonzero(comparable & ~states.sound).tolist():
            state = self._checked.stored[row] or b""
            self._add(row, ParityFault.DAMAGED, detail=f"{len(state):,} bytes that begin with {state[:24].hex()}")
        for row in np.flatnonzero(comparable & states.sound & self._ahead).tolist():
            self._add(row, ParityFault.AHEAD, detail=self._describe_excess(row))
        # Only states whose positions are in the log can be recomputed from it.
        rows = np.flatnonzero(comparable & states.sound & ~self._ahead)
        self._compare_values(rows)
        for number, part in enumerate(self.parts):
            self._find_lost(rows, number, part, upto[:, number])
        faults = {row: replace(fault, repairable=not is_other_log) for row, fault in sorted(self._faults.items())}
        return replace(self._checked, available=comparable, faults=faults)

    def _compare_values(self, rows: Int64Array) -> None:
        if not len(rows):
            return
        entities = self._entities(rows)
        log = self._views.join.read_applied(self._view, self.parts, entities, self._applied[rows])
        expected = np.stack([log.values[column.name] for column in self._view.features], axis=1)
        online = self._decode_states.features[rows]
        different = ~equal_bits(online, expected)
        for place in np.flatnonzero(different.any(axis=1)).tolist():
            feature = int(different[place].argmax())
            name = self._view.aggregates[feature].name
            sides = [
                None if np.isnan(side) else float(side) for side in (online[place, feature], expected[place, feature])
            ]
            self._add(int(rows[place]), ParityFault.VALUE, feature=name, online=sides[0], log=sides[1])

    def _find_lost(self, rows: Int64Array, number: int, part: LogPartition, upto: Int64Array) -> None:
        after = self._applied[:, number]
        upto = np.minimum(upto, self._ends[number])
        # A state with another fault has its cause already, and its repair also brings back lost events.
        candidates = np.array(
            [row for row in rows.tolist() if row not in self._faults and after[row] < upto[row]], np.int64
        )
        if not len(candidates):
            return
        entities = self._entities(candidates)
        is_lost = find_touched_rows(
            self._views.connection, self._view, part, entities, after[candidates], upto[candidates]
        )
        for row in candidates[is_lost].tolist():
            is_missing = self._checked.stored[row] is None
            detail = f"all of {part.partition} up to {upto[row]} had been applied"
            self._add(row, ParityFault.ABSENT if is_missing else ParityFault.LOST, detail=detail)

    def _entities(self, rows: Int64Array) -> pa.Table:
        keys = self._checked.keys.take(pa.array(rows))
        return keys.append_column(TIME, pa.array(self._t[rows]))

    def _describe_excess(self, row: int) -> str:
        beyond = np.flatnonzero(self._applied[row] > self._ends)
        if not len(beyond):
            return "it has a partition that the log does not have"
        part = int(beyond[0])
        return f"{self.parts[part].partition} ends at {self._ends[part]}"

    def _add(self, row: int, cause: ParityFault, **values: Any) -> None:  # noqa: ANN401 - of Mismatch
        positions = {
            part.partition: int(seq) for part, seq in zip(self.parts, self._applied[row], strict=True) if seq >= 0
        }
        self._faults[row] = Mismatch(
            view=self._view.name,
            cause=cause,
            entity=entity_of(self._checked.keys, row),
            positions=positions,
            **values,
        )


def _decode_states(view: WindowView, reads: Sequence[_StateBatch]) -> _StateTotals:
    """Return the decoded states; states that cannot be decoded count as empty."""
    codec, reader = TileCodec(view), WindowReader(view)
    validity, early, features, slots = [], [], [], []
    for read in reads:
        tiles, sound = codec.unpack_sound(read.stored)
        # A time further ahead than clocks can differ is a corrupt number; a little ahead, the state is only early.
        is_valid = sound & (tiles.m <= read.t + _CLOCKS_APART_US)
        # Decoded again without the others: numbers of a corrupt state must not reach the computation of the features.
        tiles = codec.unpack([state if ok else None for state, ok in zip(read.stored, is_valid.tolist(), strict=True)])
        with np.errstate(all="ignore"):  # corrupt states can give any number
            features.append(reader.features(tiles, read.t))
        validity.append(is_valid)
        early.append(tiles.m > read.t)
        slots.append(tiles.slots)
    return _StateTotals(
        sound=np.concatenate(validity),
        early=np.concatenate(early),
        slots=AppliedPositions.concatenate(slots, np.array([len(read.stored) for read in reads])),
        features=np.concatenate(features),
    )
