"""First loads by tasks: each writes the latest rows of the entities of its buckets to the online store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b

from skewless.contract.plan import BUCKETS, FeaturePlan
from skewless.infra.ingest.materialization.latest_rows import LatestRows
from skewless.infra.log.bucket_order import BucketRange
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.engines.view_reads import plan_of
from skewless.infra.reads.online.port import OnlineWriter
from skewless.infra.reads.online.store import open_online_store

COST = 10  # a row is packed and sent


@dataclass(frozen=True, kw_only=True)
class EngineWriter:
    """Writes latest rows as ``LatestRows.write``, many rows on an engine.

    Args:
        redis_url: returns the URL of the online store.
        buckets: number of buckets.
    """

    engine: Engine
    redis_url: Callable[[], str]
    buckets: int = BUCKETS

    def write(
        self, rows: LatestRows, online: OnlineWriter, first: int, on_rows: Callable[[int], None]
    ) -> tuple[int, int]:
        """Write the latest row of each entity from position ``first`` on; return the numbers of sent and written rows.

        Of a task that was tried again, only the rows that its last attempt changed count as written.
        """
        last = rows.log.next_seq() - 1
        positions = last + 1 - first
        if not self.engine.is_large(positions, COST):
            return rows.write(online, first, on_rows)
        alone = plan_of(rows.view, rows.project, self.buckets)

        def plan_tasks() -> Sequence[Task]:
            # No two runs have one identity: the store may have lost what an earlier run wrote.
            at_us = self.engine.state.database.now_us()
            return self.engine.split(
                "materialize",
                alone.buckets,
                connection=rows.connection,
                plan=alone.hash,
                snapshot={"first": first, "last": last, "at_us": at_us},
                parameters={"plan": alone.as_dict()},
                secrets={"redis_url": self.redis_url()},
            )

        def on_result(result: TaskResult) -> None:
            on_rows(positions * int(result.values["buckets"]) // self.buckets)

        with self.engine.run("materialize", "writing rows", positions, plan_tasks, on_result) as results:
            return sum(result.rows for result in results), sum(int(result.values["written"]) for result in results)


def write_rows(task: Task) -> TaskResult:
    """Write the latest rows of a task's buckets."""
    plan = FeaturePlan.from_dict(task.parameters["plan"])
    project = open_project(task)
    views = project.views
    (view,) = plan.views
    rows = LatestRows(
        project=plan.project,
        view=view,
        log=views.log(view),
        connection=views.connection,
        buckets=BucketRange(first=task.first, end=task.end, count=plan.buckets),
    )
    total = blake2b(digest_size=16)
    sent = written = 0
    with closing(open_online_store(project.settings.redis_url or "")) as store:
        for keys, packed, _ in rows.batches(task.snapshot["first"], task.snapshot["last"]):
            for name, row in zip(keys.to_pylist(), packed.to_pylist(), strict=True):
                total.update(name + row)
            sent, written = sent + len(keys), written + store.put(keys, packed)
    return TaskResult(
        rows=sent,
        digest=total.hexdigest(),
        values={"written": written, "buckets": task.end - task.first},
    )
