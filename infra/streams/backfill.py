"""Builds the states of a windowed view from the log, beside those that are read, and switches (SEMANTICS 4.6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.clock import Clock
from skewless.contract.keys import generation_key, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import WindowView
from skewless.infra.host.priority import run_aside
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.generations import Generation, Generations, applying
from skewless.infra.log.partitions import IMPORTED, log_ends, log_partitions, source_folder
from skewless.infra.offline.log_parts import read_log_partitions
from skewless.infra.offline.window_join import WindowJoin
from skewless.infra.online.build_rate import note_build
from skewless.infra.online.port import Marker, OnlineStore
from skewless.infra.online.state_view import StateView
from skewless.infra.storage.durable import exclusive
from skewless.infra.streams.state_writer import PENDING_US, StateWriter

OnStates = Callable[[str, int], None]


@dataclass(frozen=True, kw_only=True)
class BackfillResult:
    """What was built: a generation's number, and how many states and events it began with; None: none was built."""

    view: str
    generation: int | None
    states: int | None
    events: int


@dataclass(frozen=True, kw_only=True)
class Backfiller:
    """Builds generations of the windowed views of a plan.

    Args:
        log_root: folder of all logs.
    """

    plan: FeaturePlan
    log_root: Path
    generations: Generations
    store: OnlineStore
    join: WindowJoin
    clock: Clock

    def ensure(
        self, views: Sequence[WindowView], on_states: OnStates = lambda _view, _done: None
    ) -> list[BackfillResult]:
        """Build the views that have no live generation in this store; tell servers about all."""
        built = []
        for view in views:
            if self._missing(view):
                # Who comes while another process builds waits for it, and finds that nothing is missing.
                with exclusive(self.generations.building(view)):
                    built += [self._build(view, on_states)] if self._missing(view) else []
            self.publish(view)
        return built

    def build(self, view: WindowView, on_states: OnStates = lambda _view, _done: None) -> BackfillResult:
        """Build a new generation from the log, and make it the one that is read.

        The stream goes on meanwhile; workers wait only while the last rows are applied and the switch is made.

        Raises:
            StoreError: the store or the disk refused; what is read stays what it was.
        """
        with exclusive(self.generations.building(view)):
            return self._build(view, on_states)

    def _build(self, view: WindowView, on_states: OnStates) -> BackfillResult:
        now_us, begun = self.clock.now_us(), time.monotonic()
        ends = log_ends(self.log_root, view.source)
        fresh = self.generations.begin(view, list(ends), now_us)
        states = StateView.of(self.plan.project, view, fresh.number)
        names = {part: window_marker(self.plan.project, view, fresh.number, part) for part in ends}
        for name in names.values():
            self.store.marker(name)
        self.store.set_markers(dict.fromkeys(names.values(), Marker(-1)), dict.fromkeys(names.values()))
        count = run_aside(lambda: self._load(view, states, ends, now_us, on_states))
        known = self._watermarks(view, list(ends), now_us)
        marks = {names[part]: Marker(end, known[part]) for part, end in ends.items()}
        self.store.set_markers(marks, dict.fromkeys(names.values(), -1))
        self._follow(view, fresh)
        events = sum(ends.values()) + len(ends)
        note_build(self.generations.folder, events, time.monotonic() - begun)
        return BackfillResult(view=view.name, generation=fresh.number, states=count, events=events)

    def _watermarks(self, view: WindowView, partitions: Sequence[str], now_us: int) -> dict[str, int]:
        """Return the watermarks of partitions whose log is in the new states: those of the states that are live so far.

        What waits in a stream only its worker knows; into what was imported nothing flows.
        """
        live = self.generations.live(view)
        names = [
            window_marker(self.plan.project, view, 0 if live is None else live.number, each) for each in partitions
        ]
        marks = self.store.peek_marks(names)
        return {
            each: now_us if IMPORTED in each else 0 if mark is None else mark.watermark_us
            for each, mark in zip(partitions, marks, strict=True)
        }

    def publish(self, view: WindowView) -> None:
        """Tell servers which generation is read, and which partitions are applied to it."""
        live = self.generations.live(view)
        if live is not None:
            self.store.publish(generation_key(self.plan.project, view), live.pointer)

    def _load(
        self, view: WindowView, states: StateView, ends: Mapping[str, int], now_us: int, on_states: OnStates
    ) -> int:
        count = 0
        parts = read_log_partitions(self.log_root, view.source)
        for keys, tiles in self.join.states(view, parts, now_us - PENDING_US, ends):
            states.create(self.store, keys, tiles)
            count += tiles.n
            on_states(view.name, count)
        return count

    def _follow(self, view: WindowView, fresh: Generation) -> None:
        """Apply what came since, at last alone, and switch."""
        writer = self._writer(view, fresh)
        folder = source_folder(self.log_root, view.source)
        for log in self._logs(view):
            writer.catch_up(log)
        with applying(folder, alone=True):
            for log in self._logs(view):
                writer.follow(log)
            self.generations.add_partitions(view, log_partitions(self.log_root, view.source))
            self.generations.mark_served(view.source)
            self.generations.switch(view, fresh.number, self.clock.now_us())
            self.publish(view)

    def _writer(self, view: WindowView, fresh: Generation) -> StateWriter:
        return StateWriter(
            project=self.plan.project,
            log_folder=source_folder(self.log_root, view.source),
            views=[view],
            store=self.store,
            generations=self.generations,
            clock=self.clock,
            only=fresh.number,
        )

    def _logs(self, view: WindowView) -> list[EventLog]:
        # Those too that are owned and have no event yet: servers will look for a marker of each.
        known = {part for item in self.generations.of(view) for part in item.partitions}
        names = sorted({*log_partitions(self.log_root, view.source), *known})
        return [EventLog(self.log_root, name) for name in names]

    def _missing(self, view: WindowView) -> bool:
        live = self.generations.live(view)
        if live is None:
            return True
        names = [window_marker(self.plan.project, view, live.number, part) for part in live.partitions]
        return bool(names) and all(self.store.marker(name) is None for name in names)
