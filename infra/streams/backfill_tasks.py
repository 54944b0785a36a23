"""Backfill by tasks: each writes the states of the entities of its buckets to the online store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b

from skewless.contract.columns import digest
from skewless.contract.keys import window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import WindowView
from skewless.infra.engines.engine import Engine, open_project
from skewless.infra.engines.results import write_table
from skewless.infra.engines.task import Task, TaskResult
from skewless.infra.engines.view_reads import plan_of, read_buckets, sort_by_bucket
from skewless.infra.offline.log_parts import read_log_partitions
from skewless.infra.offline.window_join import WindowJoin
from skewless.infra.online.state_view import StateView
from skewless.infra.online.store import open_online_store


@dataclass(frozen=True, kw_only=True)
class EngineStates:
    """Writes the states of a generation on an engine, if they are many.

    Args:
        redis_url: returns the URL of the online store.
        buckets: number of buckets.
    """

    engine: Engine
    redis_url: Callable[[], str]
    buckets: int

    def load(
        self,
        project: str,
        view: WindowView,
        generation: int,
        *,
        join: WindowJoin,
        ends: Mapping[str, int],
        m: int,
        on_states: Callable[[int], None],
    ) -> int | None:
        """Write the states of all entities; return how many, None if the events are too few for the engine.

        Args:
            join: reads the log.
            ends: per log partition, the last position that counts.
            m: time up to which events are rolled up, microseconds.
            on_states: called with the number of states so far.
        """
        if not self.engine.is_large(sum(ends.values()) + len(ends)):
            return None
        alone, state, done = plan_of(view, project, self.buckets), self.engine.state, 0

        def plan_tasks() -> Sequence[Task]:
            keys = join.read_keys(view, read_log_partitions(state, view.source), ends)
            folder = f"inputs-{digest([alone.hash, generation])}"
            names = [column.name for column in view.keys]
            # A generation is built once, so no result of an earlier run counts for a store that may have lost it.
            return self.engine.split(
                "backfill",
                self.buckets,
                connection=join.connection,
                plan=alone.hash,
                snapshot={"ends": dict(ends), "generation": generation},
                parameters={"plan": alone.as_dict(), "m": m},
                inputs=(write_table(state.storage, folder, sort_by_bucket(keys, names, self.buckets)),),
                secrets={"redis_url": self.redis_url()},
            )

        def on_result(result: TaskResult) -> None:
            nonlocal done
            done += result.rows
            on_states(done)

        with self.engine.run("backfill", "writing states", 0, plan_tasks, on_result) as results:
            return sum(result.rows for result in results)


def write_states(task: Task) -> TaskResult:
    """Write the states of the entities of a task's buckets."""
    project, began, write_s = open_project(task), time.perf_counter(), 0.0
    views, plan, snapshot = project.views, FeaturePlan.from_dict(task.parameters["plan"]), task.snapshot
    (view,) = plan.windows
    states = StateView.of(plan.project, view, snapshot["generation"])
    keys = read_buckets(views.state.storage, task).select([column.name for column in view.keys])
    parts, count, total = read_log_partitions(views.state, view.source), 0, 0
    filled = [part for part, end in snapshot["ends"].items() if end >= 0]
    markers = [window_marker(plan.project, view, states.generation, part) for part in filled]
    views.join.read_s = 0.0
    with closing(open_online_store(project.settings.redis_url or "")) as store:
        for own, tiles in views.join.states(view, parts, task.parameters["m"], snapshot["ends"], keys):
            started = time.perf_counter()
            written = states.create(store, own, tiles, markers)
            write_s += time.perf_counter() - started
            count += tiles.n
            # DuckDB numbers the keys in any order, so the digest does not depend on the order.
            for name, value in zip(*(column.to_pylist() for column in written), strict=True):
                total += int.from_bytes(blake2b(name + value, digest_size=16).digest())
    seconds = time.perf_counter() - began - write_s
    return TaskResult(rows=count, digest=f"{total % 2**128:032x}", compute_s=seconds, write_s=write_s)
