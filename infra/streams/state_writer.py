"""Applies log rows to the states of all views that a source feeds, in every generation that is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, SkewlessError
from skewless.contract.keys import generation_key, window_marker
from skewless.contract.window_events import EventLens
from skewless.contract.windows.state_layout import EventOrigins, partition_number
from skewless.contract.windows.view import WindowView
from skewless.infra.log.accepted import EVENT, REJECT, SEQ
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.generations import Generations, applying
from skewless.infra.online.port import LOST, Marker, OnlineStore
from skewless.infra.online.state_view import StateView

PENDING_US = 2_000_000
_NEW = -1


class StateWriter:
    """Applies the events of one source.

    Rows of one partition are applied in the order of their positions and noted behind them, so that whoever goes
    on from the note leaves nothing out; what was applied already changes nothing.

    Args:
        log_folder: of the source, for the lock that a switch of generations takes.
        views: the windowed views that the source feeds.
        needed: returns the hashes of the views that the source has to feed now; None: those of ``views``, for ever.
        only: write this generation alone, whatever its stage; by default all that are to be written.
    """

    def __init__(
        self,
        *,
        project: str,
        log_folder: Path,
        views: Sequence[WindowView],
        store: OnlineStore,
        generations: Generations,
        clock: Clock,
        needed: Callable[[], Collection[str]] | None = None,
        only: int | None = None,
    ) -> None:
        self._project = project
        self._log_folder = log_folder
        self._store = store
        self._generations = generations
        self._clock = clock
        self._needed_now = needed
        self._only = only
        self._views: Sequence[WindowView] = ()
        self._lenses: dict[str, EventLens] = {}
        self._needed: list[str] = []
        self._versions: dict[str, tuple[int, int]] = {}
        self._written: dict[str, tuple[StateView, ...]] = {}
        self._applied: dict[str, int | None] = {}
        self.take_up(views)

    def take_up(self, views: Sequence[WindowView]) -> None:
        """Write to the states of these views from now on, whatever was written to before."""
        self._views = views
        self._lenses = {view.hash: self._lenses.get(view.hash) or EventLens(view) for view in views}
        self._needed = sorted({column for lens in self._lenses.values() for column in lens.columns})
        for known in (self._versions, self._written):
            for gone in known.keys() - self._lenses.keys():
                del known[gone]

    def note_end(self, log: EventLog, first: int, last: int) -> bool:
        """Record that applying positions ``first`` to ``last`` has ended, unless a view needs them that lacks them.

        A view that is needed since a moment ago may answer before this writer feeds it. Whoever takes it up applies
        what it lacks, and records the end then (SEMANTICS 2.6). Call it when they have been applied.

        Returns:
            Whether it is recorded.

        Raises:
            StoreError: the disk refused.
        """
        try:
            needed = self._lenses.keys() if self._needed_now is None else self._needed_now()
        except SkewlessError:
            return False  # nobody knows; who reads it to take it up says so
        if not self._lenses.keys() >= set(needed):
            return False
        log.ended(first, last, self._clock.now_us())
        return True

    def apply(self, log: EventLog, rows: pa.Table, watermark_us: int = 0) -> int:
        """Apply rows that the log has just taken; return how many states changed.

        Args:
            watermark_us: up to when all that had arrived is in the log by then; 0: as before.

        Raises:
            StoreError: the store refused or is away; ``catch_up`` makes good what is missing.
        """
        with applying(self._log_folder):
            self._look()
            first = rows[SEQ][0].as_py()
            behind = [states for states in self._all() if self._applied.get(self._marker(states, log)) != first - 1]
            if behind:
                return self._catch_up(log)[1]
            changed = self._apply(log.partition, self._all(), rows)
            self._note(log, self._all(), rows[SEQ][-1].as_py(), watermark_us)
            return changed

    def catch_up(self, log: EventLog) -> tuple[int, int]:
        """Apply what the log holds and the states lack; return how many rows were read, and states changed.

        Raises:
            StoreError: the store refused or is away.
            ConflictError: the states hold more than the log: what it will hold at these positions is not theirs.
        """
        with applying(self._log_folder):
            return self.follow(log)

    def follow(self, log: EventLog) -> tuple[int, int]:
        """Do as ``catch_up`` does, for one who holds the right to apply already."""
        self._look()
        return self._catch_up(log)

    def standing(self, partitions: Sequence[str]) -> dict[str, int | None]:
        """Return up to where the store has surely each partition in all states, as it says now; None: unknown.

        Raises:
            StoreError: the store is away.
        """
        self._look()
        every = [
            (part, window_marker(self._project, states.view, states.generation, part))
            for part in partitions
            for states in self._all()
        ]
        found: dict[str, int | None] = {}
        for (part, _), mark in zip(every, self._store.peek_marks([name for _, name in every]), strict=True):
            position = None if mark is None else mark.position
            before = found.get(part, position)
            found[part] = None if position is None or before is None else min(before, position)
        return found

    def advance(self, watermarks: Mapping[str, Marker]) -> None:
        """Note that nothing more had arrived in partitions by some time than what has been applied (SEMANTICS 8.4).

        Args:
            watermarks: by partition, its last position, which must have been applied, and the time.

        Raises:
            StoreError: the store is away, or lacks something that was applied.
        """
        self._look()
        marks = {
            window_marker(self._project, states.view, states.generation, part): mark
            for part, mark in watermarks.items()
            for states in self._all()
        }
        self._store.refresh_markers(marks)

    def partitions(self) -> set[str]:
        """Return the log partitions that are applied to some generation."""
        return {part for view in self._views for item in self._generations.written(view) for part in item.partitions}

    def _catch_up(self, log: EventLog) -> tuple[int, int]:
        read = changed = 0
        recorded = max(log.ends()["last"].to_pylist(), default=-1)
        self._begin(log, _NEW if recorded < 0 else LOST)
        end = log.next_seq() - 1
        for states in self._all():
            for rows in self._rows(log, self._reached(states, log, end) + 1, end):
                read += rows.num_rows
                changed += self._apply(log.partition, [states], rows)
                # After a loss not before the states are what they were: a reader may have missed the last markers.
                if (last := rows[SEQ][-1].as_py()) >= recorded:
                    self._note(log, [states], last)
        if self._only is None:
            for view in self._views:
                # Behind its marker: a server that is told of a partition without one takes it for lost.
                self._generations.add_partitions(view, [log.partition])
        self._tell()
        return read, changed

    def _begin(self, log: EventLog, first: int) -> None:
        """See that each generation has its marker before its first state: a store that forgets it is noticed."""
        for states in self._all():
            name = self._marker(states, log)
            self._applied[name] = self._store.marker(name)
            if self._applied[name] is None:
                self._note(log, [states], first)

    def _tell(self) -> None:
        """Tell servers which partitions they read, when all of them are there."""
        for view in self._views:
            live = self._generations.live(view)
            if live is None:
                continue
            names = [window_marker(self._project, view, live.number, part) for part in live.partitions]
            if None not in self._store.peek_marks(names):
                self._store.publish(generation_key(self._project, view), live.pointer)

    def _reached(self, states: StateView, log: EventLog, end: int) -> int:
        reached = self._applied[self._marker(states, log)]
        if reached is None or reached > end:
            raise ConflictError(
                f"log partition {log.partition!r}",
                f"ends at {end}, before what was applied from it; is the state folder an older copy?",
                value=reached,
                fix=f"put the newer one back, or run `skewless backfill {states.view.name}`",
            )
        return max(reached, -1)

    def _rows(self, log: EventLog, first: int, end: int) -> Iterator[pa.Table]:
        return log.read(first, end, [*self._needed, EVENT, SEQ, REJECT]) if first <= end else iter(())

    def _apply(self, partition: str, written: Sequence[StateView], rows: pa.Table) -> int:
        accepted = rows.filter(rows[REJECT].is_null()) if rows[REJECT].null_count < rows.num_rows else rows
        if not accepted.num_rows:
            return 0
        origin = EventOrigins(
            ts=accepted[EVENT].to_numpy(),
            partition=np.full(accepted.num_rows, partition_number(partition)),
            seq=accepted[SEQ].to_numpy(),
        )
        m = self._clock.now_us() - PENDING_US
        seen = {}
        changed = 0
        for states in written:
            name = states.view.hash
            if name not in seen:
                seen[name] = self._lenses[name].look(accepted, origin)
            marker = window_marker(self._project, states.view, states.generation, partition)
            changed += states.append(self._store, seen[name], m, (marker, self._applied[marker]))
        return changed

    def _note(self, log: EventLog, written: Sequence[StateView], last: int, watermark_us: int = 0) -> None:
        names = [self._marker(states, log) for states in written]
        mark = Marker(last, watermark_us)
        self._store.set_markers(dict.fromkeys(names, mark), {name: self._applied[name] for name in names})
        self._applied.update(dict.fromkeys(names, last))

    def _look(self) -> None:
        """Take up generations that came or went."""
        for view in self._views:
            version = self._generations.version(view)
            if self._versions.get(view.hash) != version:
                numbers = [item.number for item in self._generations.written(view)]
                if self._only is not None:
                    numbers = [self._only]
                self._written[view.hash] = tuple(StateView.of(self._project, view, number) for number in numbers)
                self._versions[view.hash] = version

    def _all(self) -> list[StateView]:
        return [states for view in self._views for states in self._written.get(view.hash, ())]

    def _marker(self, states: StateView, log: EventLog) -> str:
        return window_marker(self._project, states.view, states.generation, log.partition)
