"""Builds new states of a windowed view from the log while the old ones are read, then switches (SEMANTICS 4.6).

Many states are built by tasks: each writes the states of the entities of its buckets to the online store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from skewless.contract.columns import digest
from skewless.contract.keys import generation_key, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.ingest.streams.state_writer import PENDING_US, StateWriter
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.catalog import IMPORTED, Catalog, log_ends, log_partitions
from skewless.infra.log.compaction import compact
from skewless.infra.log.generations import Generation
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.host.priority import run_at_low_priority
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import write_table
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.engines.view_reads import plan_of, read_buckets, sort_by_bucket
from skewless.infra.reads.offline.log_parts import read_log_partitions
from skewless.infra.reads.offline.window_join import WindowJoin
from skewless.infra.reads.online.build_rate import record_build
from skewless.infra.reads.online.port import Marker, OnlineStore
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.store import open_online_store
from skewless.infra.reads.online.window_states import StateView, lease_key

OnStates = Callable[[str, int], None]
# Longer than servers take to notice a new generation, and longer than their lease on the old one.
DRAIN_US = 60_000_000


@dataclass(frozen=True, kw_only=True)
class BackfillResult:
    """The built states of a view.

    Args:
        generation: of a windowed view; None: the view has none.
        states: initial states of the generation, or written rows; None: nothing was built.
        events: events, or rows, in the log.
    """

    view: str
    generation: int | None
    states: int | None
    events: int


@dataclass(frozen=True, kw_only=True)
class Backfiller:
    """Builds generations of the windowed views of a plan.

    Args:
        streams: with the plan; its engine, if it has one, writes many states.
        store: the online store.
    """

    streams: Streams
    store: OnlineStore

    @cached_property
    def _join(self) -> WindowJoin:
        """Computes states from the log."""
        return WindowJoin(self.streams.connection)

    def build_missing(
        self, views: Sequence[WindowView], on_states: OnStates = lambda _view, _done: None
    ) -> list[BackfillResult]:
        """Build the views without a live generation in this store; publish the generations of all views."""
        results = []
        for view in views:
            if self._is_missing(view):
                # After a wait for another backfill, the view may not be missing any more, so check again.
                with self.streams.generations.hold_build(view):
                    results += [self._build(view, on_states)] if self._is_missing(view) else []
            self.publish(view)
        return results

    def build(self, view: WindowView, on_states: OnStates = lambda _view, _done: None) -> BackfillResult:
        """Build a new generation from the log, and make it the live one.

        The stream continues in the meantime; workers wait only while the last rows are applied.

        Raises:
            StoreError: the store or the disk failed; the old generation stays live.
        """
        with self.streams.generations.hold_build(view):
            return self._build(view, on_states)

    def _build(self, view: WindowView, on_states: OnStates) -> BackfillResult:
        now_us, started = self.streams.clock.now_us(), time.monotonic()
        ends = log_ends(self.streams.state, view.source)
        generation = self.streams.generations.begin(view, list(ends), now_us)
        states = StateView(self.streams.plan.project, view, generation.number)
        names = {part: window_marker(self.streams.plan.project, view, generation.number, part) for part in ends}
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
        record_build(self.streams.generations.folder, events, time.monotonic() - started)
        return BackfillResult(view=view.name, generation=generation.number, states=count, events=events)

    def _watermarks(self, view: WindowView, partitions: Sequence[str], now_us: int) -> dict[str, int]:
        """Return the watermarks of partitions whose log is in the new states: those of the live generation.

        Only a partition's worker knows which events still wait in the stream. Imported partitions get no new events.
        """
        live = self.streams.generations.find_live(view)
        project, number = self.streams.plan.project, 0 if live is None else live.number
        names = [window_marker(project, view, number, each) for each in partitions]
        marks = self.store.read_markers(names)
        return {
            each: now_us if IMPORTED in each else 0 if mark is None else mark.watermark_us
            for each, mark in zip(partitions, marks, strict=True)
        }

    def publish(self, view: WindowView) -> None:
        """Publish the live generation and its partitions to servers."""
        live = self.streams.generations.find_live(view)
        if live is not None:
            self.store.publish(generation_key(self.streams.plan.project, view), live.pointer)

    def _load_states(
        self, view: WindowView, states: StateView, ends: Mapping[str, int], now_us: int, on_states: OnStates
    ) -> int:
        rolled_up_us = now_us - PENDING_US
        engine = self.streams.engine
        if engine is not None and engine.is_large(sum(ends.values()) + len(ends)):
            return self._run_tasks(engine, view, states.generation, ends, rolled_up_us, on_states)
        count = 0
        parts = read_log_partitions(self.streams.state, view.source)
        for keys, tiles in self._join.states(view, parts, rolled_up_us, ends):
            states.create(self.store, keys, tiles)
            count += tiles.n
            on_states(view.name, count)
        return count

    def _run_tasks(
        self,
        engine: Engine,
        view: WindowView,
        generation: int,
        ends: Mapping[str, int],
        m: int,
        on_states: OnStates,
    ) -> int:
        """Write the states of all entities on an engine; return how many.

        Args:
            ends: per log partition, the last position that counts.
            m: time up to which events are rolled up, microseconds.
        """
        streams, done = self.streams, 0
        buckets = streams.plan.buckets
        alone = plan_of(view, streams.plan.project, buckets)

        def plan_tasks() -> Sequence[Task]:
            keys = self._join.read_keys(view, read_log_partitions(streams.state, view.source), ends)
            folder = f"inputs-{digest([alone.hash, generation])}"
            names = [column.name for column in view.keys]
            # A generation is built once, so no result of an earlier run counts for a store that may have lost it.
            return engine.split(
                "backfill",
                buckets,
                connection=streams.connection,
                plan=alone.hash,
                snapshot={"ends": dict(ends), "generation": generation},
                parameters={"plan": alone.as_dict(), "m": m},
                inputs=(write_table(streams.state.storage, folder, sort_by_bucket(keys, names, buckets)),),
                secrets={"redis_url": streams.redis_url},
            )

        def on_result(result: TaskResult) -> None:
            nonlocal done
            done += result.rows
            on_states(view.name, done)

        with engine.run("backfill", "writing states", 0, plan_tasks, on_result) as results:
            return sum(result.rows for result in results)

    def _catch_up_and_switch(self, view: WindowView, generation: Generation) -> None:
        """Apply rows that were logged since, the last ones under the exclusive lock, and switch."""
        writer = StateWriter(
            project=self.streams.plan.project,
            source=view.source,
            views=[view],
            store=self.store,
            generations=self.streams.generations,
            clock=self.streams.clock,
            only=generation.number,
        )
        # First without the exclusive lock, so that little is left to apply while the workers wait.
        for log in self._logs(view):
            writer.catch_up(log)
        with self.streams.generations.hold_apply_lock(view.source, alone=True):
            for log in self._logs(view):
                writer.catch_up_locked(log)
            self.streams.generations.add_partitions(view, log_partitions(self.streams.state, view.source))
            self.streams.generations.mark_served(view.source)
            self.streams.generations.switch(view, generation.number, self.streams.clock.now_us())
            # Last, because servers follow the pointer at once.
            self.publish(view)

    def _logs(self, view: WindowView) -> list[PartitionLog]:
        # Includes partitions without events: servers read a marker for each partition of the generation.
        watermarks = {part for item in self.streams.generations.list_all(view) for part in item.partitions}
        names = sorted({*log_partitions(self.streams.state, view.source), *watermarks})
        return [PartitionLog(self.streams.state, name) for name in names]

    def _is_missing(self, view: WindowView) -> bool:
        live = self.streams.generations.find_live(view)
        if live is None:
            return True
        names = [window_marker(self.streams.plan.project, view, live.number, part) for part in live.partitions]
        # All of them: the store is a new or an empty one. A single missing marker is repaired by catching up.
        return bool(names) and all(self.store.marker(name) is None for name in names)


def write_states(task: Task) -> TaskResult:
    """Write the states of the entities of a task's buckets."""
    plan, snapshot = FeaturePlan.from_dict(task.parameters["plan"]), task.snapshot
    project = open_project(task, plan.buckets)
    views = project.views
    (view,) = plan.windows
    keys = read_buckets(views.state.storage, task).select([column.name for column in view.keys])
    parts, count, total = read_log_partitions(views.state, view.source), 0, 0
    generation, ends = snapshot["generation"], snapshot["ends"]
    markers = [window_marker(plan.project, view, generation, part) for part, end in ends.items() if end >= 0]
    states = StateView(plan.project, view, generation)
    with closing(open_online_store(project.settings.redis_url or "")) as store:
        for own, tiles in views.join.states(view, parts, task.parameters["m"], ends, keys):
            written = states.create(store, own, tiles, markers)
            count += tiles.n
            # DuckDB numbers the keys in any order, so the digest does not depend on the order.
            for name, value in zip(*(column.to_pylist() for column in written), strict=True):
                total += int.from_bytes(blake2b(name + value, digest_size=16).digest())
    return TaskResult(rows=count, digest=f"{total % 2**128:032x}")


@dataclass(frozen=True, kw_only=True)
class Housekeeper:
    """Keeps the logs and states of views in order; any number of workers may call it at any time."""

    streams: Streams
    sources: Sequence[EventSource]
    store: OnlineStore

    def run(self) -> None:
        """Compact logs and remove states that are due.

        Raises:
            StoreError: the disk or the store failed.
        """
        state = self.streams.state
        # One process at a time: another one would do the same work in vain.
        with Leases(state.database).try_hold("housekeeping of streams") as lease:
            if lease is None:
                return
            views = [view for source in self.sources for view in self.streams.views(source.name)]
            # The first view of a source decides the order of its events.
            for source, view in {view.source: view for view in reversed(views)}.items():
                order = BucketOrder(keys=view.keys, buckets=self.streams.plan.buckets)
                for name in log_partitions(state, source):
                    compact(PartitionLog(state, name), order=order)
            Catalog(state.database).delete_unread(state.storage)
            for view in views:
                self.retire(view)

    def retire(self, view: WindowView, *, dry_run: bool = False) -> int:
        """Remove generations that no server reads; return how many."""
        unread = [item for item in self.streams.generations.list_all(view) if self._is_unread(view, item)]
        for item in [] if dry_run else unread:
            # The exclusive lock ensures that no worker still writes to the generation while it is deleted.
            with self.streams.generations.hold_apply_lock(view.source, alone=True):
                self.streams.generations.give_up(view, item.number)
            self.store.delete(f"sk:{self.streams.plan.project}:{view.hash}.{item.number}:")
            if self.streams.settings.redis_url is None:
                PrivateServer(self.streams.state.folder).rewrite_file()  # it still has the deleted states
            self.streams.generations.retire(view, item.number)
        return len(unread)

    def _is_unread(self, view: WindowView, item: Generation) -> bool:
        if item.stage not in {"draining", "given up"} or self.streams.clock.now_us() - item.since_us < DRAIN_US:
            return False
        return self.store.get([lease_key(self.streams.plan.project, view, item.number)]) == [None]
