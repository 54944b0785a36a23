"""Applies log rows to the states of all views of a source, in every generation that is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, SkewlessError
from skewless.contract.keys import generation_key, window_marker
from skewless.contract.window_events import EventSelector, ViewEvents
from skewless.contract.windows.state_layout import EventOrigins, partition_number
from skewless.contract.windows.view import WindowView
from skewless.infra.log.generations import Generations
from skewless.infra.log.log_columns import EVENT, REJECT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.online.port import LOST, Marker, OnlineStore
from skewless.infra.reads.online.window_states import StateView

PENDING_US = 2_000_000
_NEW = -1
Selected: TypeAlias = Mapping[str, ViewEvents]  # the events that count in a view, by its hash


@dataclass(kw_only=True, eq=False)
class StateWriter:
    """Applies the events of one source to states.

    Rows of one partition are applied in the order of their positions, and the marker is set after them. So a process
    that continues after the marker skips nothing, and applying rows again changes nothing.

    Args:
        project: name of the project.
        source: of the events.
        views: the windowed views of the source.
        store: the online store.
        generations: of the views.
        clock: of the project.
        needed: returns the hashes of the views that are needed now; None: always those of ``views``.
        only: write to this generation only, whatever its stage; by default to all that are live or draining.
        follows_events: roll states up behind the latest event, not behind the clock: decisions about events are
            evaluated at the times of the events, which may come late or from a file.
    """

    project: str
    source: str
    views: Sequence[WindowView]
    store: OnlineStore
    generations: Generations
    clock: Clock
    needed: Callable[[], Collection[str]] | None = None
    only: int | None = None
    follows_events: bool = False

    def __post_init__(self) -> None:
        """Write to the states of ``views``."""
        self._lenses: dict[str, EventSelector] = {}
        self._columns: list[str] = []
        self._versions: dict[str, int] = {}
        self._states: dict[str, tuple[StateView, ...]] = {}
        self._applied: dict[str, int | None] = {}
        self._latest_us = 0
        self.set_views(self.views)

    def set_views(self, views: Sequence[WindowView]) -> None:
        """Write to the states of these views from now on, instead of the previous ones."""
        self.views = views
        self._lenses = {view.hash: self._lenses.get(view.hash) or EventSelector(view) for view in views}
        self._columns = sorted({column for lens in self._lenses.values() for column in lens.columns})
        for cache in (self._versions, self._states):
            for removed in cache.keys() - self._lenses.keys():
                del cache[removed]

    def end_us(self) -> int | None:
        """Return the time at which positions that were just applied have ended; None: a needed view still lacks them.

        A view that was added a short time ago may be served before this writer applies events to it. The writer that
        loads the view applies what it lacks, and the end is then (SEMANTICS 2.6).
        """
        try:
            needed = self._lenses.keys() if self.needed is None else self.needed()
        except SkewlessError:
            return None  # unknown; the process that loads the plan reports the error
        return self.clock.now_us() if self._lenses.keys() >= set(needed) else None

    def apply(self, log: PartitionLog, rows: pa.Table, watermark_us: int = 0, selected: Selected | None = None) -> int:
        """Apply rows that were just appended to the log; return the number of updated states.

        Args:
            log: of the partition.
            rows: with their positions.
            watermark_us: time up to which all arrived messages are in the log; 0: unchanged.
            selected: the events of these rows that count in some views, by the hash of the view.

        Raises:
            StoreError: the store failed or is unavailable; ``catch_up`` applies the missing rows.
        """
        with self.generations.hold_apply_lock(self.source):
            self._load_generations()
            first = rows[SEQ][0].as_py()
            # A gap between the marker and the first row means that earlier rows are missing.
            behind = [
                states for states in self._list_states() if self._applied.get(self._marker(states, log)) != first - 1
            ]
            if behind:
                return self._catch_up(log)[1]
            changed = self._apply(log.partition, self._list_states(), rows, selected)
            # After the rows: a marker proves that everything written before it exists (SEMANTICS 4.5).
            self._set_markers(log, self._list_states(), rows[SEQ][-1].as_py(), watermark_us)
            return changed

    def catch_up(self, log: PartitionLog) -> tuple[int, int]:
        """Apply rows of the log that the states lack; return the numbers of read rows and updated states.

        Raises:
            StoreError: the store failed or is unavailable.
            ConflictError: the states include positions that the log does not have yet, so they would differ.
        """
        with self.generations.hold_apply_lock(self.source):
            return self.catch_up_locked(log)

    def catch_up_locked(self, log: PartitionLog) -> tuple[int, int]:
        """Do the same as ``catch_up``, for a caller that already holds the apply lock."""
        self._load_generations()
        return self._catch_up(log)

    def read_positions(self, partitions: Sequence[str]) -> dict[str, int | None]:
        """Return, per partition, the position that the store has certainly applied to all states; None: unknown.

        Raises:
            StoreError: the store is unavailable.
        """
        self._load_generations()
        names = [
            (part, window_marker(self.project, states.view, states.generation, part))
            for part in partitions
            for states in self._list_states()
        ]
        positions: dict[str, int | None] = {}
        for (part, _), marker in zip(names, self.store.read_markers([name for _, name in names]), strict=True):
            position = None if marker is None else marker.position
            previous = positions.get(part, position)
            positions[part] = None if position is None or previous is None else min(previous, position)
        return positions

    def advance(self, watermarks: Mapping[str, Marker]) -> None:
        """Advance watermarks: no unapplied message had arrived in these partitions by some time (SEMANTICS 8.4).

        Args:
            watermarks: by partition, its last position, which must be applied, and the time.

        Raises:
            StoreError: the store is unavailable, or has lost writes.
        """
        self._load_generations()
        markers = {
            window_marker(self.project, states.view, states.generation, part): marker
            for part, marker in watermarks.items()
            for states in self._list_states()
        }
        self.store.refresh_markers(markers)

    def partitions(self) -> set[str]:
        """Return the log partitions that are applied to any generation."""
        return {part for view in self.views for item in self.generations.list_written(view) for part in item.partitions}

    def _catch_up(self, log: PartitionLog) -> tuple[int, int]:
        read = changed = 0
        recorded = log.catalog.last_applied([log.partition])[log.partition]
        # A partition with a recorded end had a marker. If that is lost, the view must not look new to readers.
        self._begin(log, _NEW if recorded < 0 else LOST)
        end = log.next_seq() - 1
        for states in self._list_states():
            first = self._read_position(states, log, end) + 1
            for rows in log.read(first, end, [*self._columns, EVENT, SEQ, REJECT]) if first <= end else ():
                read += rows.num_rows
                changed += self._apply(log.partition, [states], rows)
                # After a loss of writes, markers advance only at the old end: a reader may not have seen later markers.
                if (last := rows[SEQ][-1].as_py()) >= recorded:
                    self._set_markers(log, [states], last)
        if self.only is None:
            for view in self.views:
                # Only after the marker exists: a server would report a listed partition without a marker as lost.
                self.generations.add_partitions(view, [log.partition])
        self._publish_pointers()
        return read, changed

    def _begin(self, log: PartitionLog, first: int) -> None:
        """Ensure that each generation has its marker before its first state, so that a loss of both is noticed."""
        for states in self._list_states():
            name = self._marker(states, log)
            self._applied[name] = self.store.marker(name)
            if self._applied[name] is None:
                self._set_markers(log, [states], first)

    def _publish_pointers(self) -> None:
        """Publish the partitions to servers once all of them have markers."""
        for view in self.views:
            live = self.generations.find_live(view)
            if live is None:
                continue
            names = [window_marker(self.project, view, live.number, part) for part in live.partitions]
            if None not in self.store.read_markers(names):
                self.store.publish(generation_key(self.project, view), live.pointer)

    def _read_position(self, states: StateView, log: PartitionLog, end: int) -> int:
        position = self._applied[self._marker(states, log)]
        if position is None or position > end:
            raise ConflictError(
                f"log partition {log.partition!r}",
                f"ends at {end}, before the applied position; was the database restored to an older state?",
                value=position,
                fix=f"run `skewless recover`; if that does not help, `skewless backfill {states.view.name}`",
            )
        # LOST is below -1, and means that nothing may be assumed to be applied.
        return max(position, -1)

    def _apply(
        self,
        partition: str,
        states_list: Sequence[StateView],
        rows: pa.Table,
        selected: Selected | None = None,
    ) -> int:
        accepted = rows.filter(rows[REJECT].is_null()) if rows[REJECT].null_count < rows.num_rows else rows
        if not accepted.num_rows:
            return 0
        origin = EventOrigins(
            ts=accepted[EVENT].to_numpy(),
            partition=np.full(accepted.num_rows, partition_number(partition)),
            seq=accepted[SEQ].to_numpy(),
        )
        # Not up to now: a state cannot be read at times before m (SEMANTICS 3.5), and requests may arrive late.
        self._latest_us = max(self._latest_us, int(origin.ts.max()))
        now_us = self.clock.now_us()
        m = (min(now_us, self._latest_us) if self.follows_events else now_us) - PENDING_US
        events: dict[str, ViewEvents] = dict(selected or {})
        changed = 0
        for states in states_list:
            name = states.view.hash
            if name not in events:
                events[name] = self._lenses[name].select(accepted, origin)
            marker = window_marker(self.project, states.view, states.generation, partition)
            changed += states.append(self.store, events[name], m, (marker, self._applied[marker]))
        return changed

    def _set_markers(
        self, log: PartitionLog, states_list: Sequence[StateView], last: int, watermark_us: int = 0
    ) -> None:
        names = [self._marker(states, log) for states in states_list]
        marker = Marker(last, watermark_us)
        self.store.set_markers(dict.fromkeys(names, marker), {name: self._applied[name] for name in names})
        self._applied.update(dict.fromkeys(names, last))

    def _load_generations(self) -> None:
        """Load generations that were added or removed."""
        for view in self.views:
            version = self.generations.read_version(view)
            if self._versions.get(view.hash) != version:
                numbers = [item.number for item in self.generations.list_written(view)]
                if self.only is not None:
                    numbers = [self.only]
                self._states[view.hash] = tuple(StateView(self.project, view, number) for number in numbers)
                self._versions[view.hash] = version

    def _list_states(self) -> list[StateView]:
        return [states for view in self.views for states in self._states.get(view.hash, ())]

    def _marker(self, states: StateView, log: PartitionLog) -> str:
        return window_marker(self.project, states.view, states.generation, log.partition)
