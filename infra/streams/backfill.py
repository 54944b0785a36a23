"""Builds new states of a windowed view from the log while the old ones are read, then switches (SEMANTICS 4.6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from skewless.contract.clock import Clock
from skewless.contract.keys import generation_key, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import WindowView
from skewless.infra.host.priority import run_at_low_priority
from skewless.infra.log.generations import Generation, Generations
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import IMPORTED, log_ends, log_partitions
from skewless.infra.offline.log_parts import read_log_partitions
from skewless.infra.offline.window_join import WindowJoin
from skewless.infra.online.build_rate import record_build
from skewless.infra.online.port import Marker, OnlineStore
from skewless.infra.online.state_view import StateView
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.streams.backfill_tasks import EngineStates
from skewless.infra.streams.state_writer import PENDING_US, StateWriter

OnStates = Callable[[str, int], None]


@dataclass(frozen=True, kw_only=True)
class BackfillResult:
    """The number of a built generation, and its initial number of states and events; None: no generation was built."""

    view: str
    generation: int | None
    states: int | None
    events: int


@dataclass(frozen=True, kw_only=True)
class Backfiller:
    """Builds generations of the windowed views of a plan.

    Args:
        plan: with the views.
        state: of the project.
        generations: of the views.
        store: the online store.
        join: computes states from the log.
        clock: of the project.
        engine: writes many states; None: this process writes all.
    """

    plan: FeaturePlan
    state: ProjectState
    generations: Generations
    store: OnlineStore
    join: WindowJoin
    clock: Clock
    engine: EngineStates | None = None

    def build_missing(
        self, views: Sequence[WindowView], on_states: OnStates = lambda _view, _done: None
    ) -> list[BackfillResult]:
        """Build the views without a live generation in this store; publish the generations of all views."""
        results = []
        for view in views:
            if self._is_missing(view):
                # After a wait for another backfill, the view may not be missing any more, so check again.
                with self.generations.hold_build(view):
                    results += [self._build(view, on_states)] if self._is_missing(view) else []
            self.publish(view)
        return results

    def build(self, view: WindowView, on_states: OnStates = lambda _view, _done: None) -> BackfillResult:
        """Build a new generation from the log, and make it the live one.

        The stream continues in the meantime; workers wait only while the last rows are applied.

        Raises:
            StoreError: the store or the disk failed; the old generation stays live.
        """
        with self.generations.hold_build(view):
            return self._build(view, on_states)

    def _build(self, view: WindowView, on_states: OnStates) -> BackfillResult:
        now_us, started = self.clock.now_us(), time.monotonic()
        ends = log_ends(self.state, view.source)
        generation = self.generations.begin(view, list(ends), now_us)
        states = StateView.of(self.plan.project, view, generation.number)
        names = {part: window_marker(self.plan.project, view, generation.number, part) for part in ends}
        # Begins the work: set_markers fails if a server is restarted before the end.
        for name in names.values():
            self.store.marker(name)
        # Markers before states, so that a loss of both is noticed.
        self.store.set_markers(dict.fromkeys(names.values(), Marker(-1)), dict.fromkeys(names.values()))
        count = run_at_low_priority(lambda: self._load_states(view, states, ends, now_us, on_states))
        watermarks = self._watermarks(view, list(ends), now_us)
        marks = {names[part]: Marker(end, watermarks[part]) for part, end in ends.items()}
        # Fails if the store has lost the markers during the load, and so perhaps states.
        self.store.set_markers(marks, dict.fromkeys(names.values(), -1))
        self._catch_up_and_switch(view, generation)
        events = sum(ends.values()) + len(ends)
        record_build(self.generations.folder, events, time.monotonic() - started)
        return BackfillResult(view=view.name, generation=generation.number, states=count, events=events)

    def _watermarks(self, view: WindowView, partitions: Sequence[str], now_us: int) -> dict[str, int]:
        """Return the watermarks of partitions whose log is in the new states: those of the live generation.

        Only a partition's worker knows which events still wait in the stream. Imported partitions get no new events.
        """
        live = self.generations.find_live(view)
        names = [
            window_marker(self.plan.project, view, 0 if live is None else live.number, each) for each in partitions
        ]
        marks = self.store.read_markers(names)
        return {
            each: now_us if IMPORTED in each else 0 if mark is None else mark.watermark_us
            for each, mark in zip(partitions, marks, strict=True)
        }

    def publish(self, view: WindowView) -> None:
        """Publish the live generation and its partitions to servers."""
        live = self.generations.find_live(view)
        if live is not None:
            self.store.publish(generation_key(self.plan.project, view), live.pointer)

    def _load_states(
        self, view: WindowView, states: StateView, ends: Mapping[str, int], now_us: int, on_states: OnStates
    ) -> int:
        rolled_up_us = now_us - PENDING_US
        if self.engine is not None:
            loaded = self.engine.load(
                self.plan.project,
                view,
                states.generation,
                join=self.join,
                ends=ends,
                m=rolled_up_us,
                on_states=lambda done: on_states(view.name, done),
            )
            if loaded is not None:
                return loaded
        count = 0
        parts = read_log_partitions(self.state, view.source)
        for keys, tiles in self.join.states(view, parts, rolled_up_us, ends):
            states.create(self.store, keys, tiles)
            count += tiles.n
            on_states(view.name, count)
        return count

    def _catch_up_and_switch(self, view: WindowView, generation: Generation) -> None:
        """Apply rows that were logged since, the last ones under the exclusive lock, and switch."""
        writer = self._writer(view, generation)
        # First without the exclusive lock, so that little is left to apply while the workers wait.
        for log in self._logs(view):
            writer.catch_up(log)
        with self.generations.hold_apply_lock(view.source, alone=True):
            for log in self._logs(view):
                writer.catch_up_locked(log)
            self.generations.add_partitions(view, log_partitions(self.state, view.source))
            self.generations.mark_served(view.source)
            self.generations.switch(view, generation.number, self.clock.now_us())
            # Last, because servers follow the pointer at once.
            self.publish(view)

    def _writer(self, view: WindowView, generation: Generation) -> StateWriter:
        return StateWriter(
            project=self.plan.project,
            source=view.source,
            views=[view],
            store=self.store,
            generations=self.generations,
            clock=self.clock,
            only=generation.number,
        )

    def _logs(self, view: WindowView) -> list[PartitionLog]:
        # Includes partitions without events: servers read a marker for each partition of the generation.
        watermarks = {part for item in self.generations.list_all(view) for part in item.partitions}
        names = sorted({*log_partitions(self.state, view.source), *watermarks})
        return [PartitionLog(self.state, name) for name in names]

    def _is_missing(self, view: WindowView) -> bool:
        live = self.generations.find_live(view)
        if live is None:
            return True
        names = [window_marker(self.plan.project, view, live.number, part) for part in live.partitions]
        # All of them: the store is a new or an empty one. A single missing marker is repaired by catching up.
        return bool(names) and all(self.store.marker(name) is None for name in names)
