"""Parity by tasks: each compares the entities of its buckets with the log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from skewless.contract.clock import Clock, open_clock
from skewless.contract.columns import digest
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.windows.view import WindowView
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import read_json, write_json, write_table
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.engines.view_reads import bucket_rows, plan_of, read_buckets, sort_by_bucket
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import BlockingOnlineReader
from skewless.infra.reads.online.store import open_blocking_reader
from skewless.validation.parity_checker import ParityChecker
from skewless.validation.parity_report import Mismatch, ParityFault, ViewParity
from skewless.validation.parity_rows import RowParity
from skewless.validation.parity_windows import WindowParity

# An entity is read from the online store, and computed from all its events or rows in the log.
COST = 1_000


def open_checker(
    plan: FeaturePlan, view: View | WindowView, *, views: OfflineViews, reader: BlockingOnlineReader, clock: Clock
) -> ParityChecker:
    """Return the checker of a view of a plan."""
    # From the log: a server that lost writes has markers behind it, and is unavailable instead of different (SEMANTICS
    # 4.5).
    history = MarkerHistory.from_runs(views.state, [plan])
    project = plan.project
    if isinstance(view, WindowView):
        return WindowParity(project=project, view=view, views=views, reader=reader, marker_history=history, clock=clock)
    return RowParity(project=project, view=view, views=views, reader=reader, marker_history=history, clock=clock)


def compare_on_engine(
    plan: FeaturePlan,
    view: View | WindowView,
    keys: pa.Table,
    *,
    views: OfflineViews,
    engine: Engine,
    redis_url: str,
) -> tuple[ViewParity, list[int]]:
    """Return the parity of some entities of a view, under its name, and the row numbers of the mismatches.

    Args:
        redis_url: of the online store.
    """
    alone, storage = plan_of(view, plan.project, plan.buckets), views.state.storage
    columns = [column.name for column in view.keys]

    def plan_tasks() -> Sequence[Task]:
        # No two runs have one identity: the online store changes.
        snapshot = {"at_us": views.state.database.now_us()}
        folder = f"inputs-{digest([alone.hash, snapshot])}"
        stored = write_table(storage, folder, sort_by_bucket(keys, columns, alone.buckets))
        return engine.split(
            "parity",
            alone.buckets,
            connection=views.connection,
            plan=alone.hash,
            snapshot=snapshot,
            parameters={"plan": alone.as_dict()},
            inputs=(stored,),
            secrets={"redis_url": redis_url},
        )

    total = ViewParity(view=view.name, hash=view.hash, kind=_kind(view), at_us=0, compared=0, unavailable=0)
    faults: list[tuple[int, Mismatch]] = []
    with engine.run("parity", "comparing states", keys.num_rows, plan_tasks) as results:
        for body in (read_json(storage, result.objects[0]) for result in results):
            total.at_us = max(total.at_us, body["at_us"])
            total.compared += body["compared"]
            total.unavailable += body["unavailable"]
            faults += [(row, Mismatch(**{**item, "cause": ParityFault(item["cause"])})) for row, item in body["faults"]]
    faults.sort(key=lambda fault: fault[0])
    total.mismatches = [fault for _, fault in faults]
    return total, [row for row, _ in faults]


def compare(task: Task) -> TaskResult:
    """Compare the entities of a task's buckets; the result has the mismatches."""
    plan = FeaturePlan.from_dict(task.parameters["plan"])
    project = open_project(task, plan.buckets)
    views = project.views
    (view,) = plan.all_views
    rows = read_buckets(views.state.storage, task)
    body: dict[str, Any] = {"at_us": 0, "compared": 0, "unavailable": 0, "faults": []}
    if rows.num_rows:
        with closing(open_blocking_reader(project.settings.redis_url or "")) as reader:
            checker = open_checker(plan, view, views=views, reader=reader, clock=open_clock(project.settings.clock))
            result = checker.check(rows.select([column.name for column in view.keys]))
        places = bucket_rows(rows)
        compared = int(result.available.sum())
        body = {
            "at_us": result.at_us,
            "compared": compared,
            "unavailable": rows.num_rows - compared,
            "faults": sorted((int(places[row]), asdict(fault)) for row, fault in result.faults.items()),
        }
    stored = write_json(views.state.storage, task.job, body)
    checked = digest({name: value for name, value in body.items() if name != "at_us"})
    return TaskResult(
        objects=(stored,),
        rows=rows.num_rows,
        digest=checked,
        basis=str(body["at_us"]),  # the online store of that time
    )


def _kind(view: View | WindowView) -> Any:  # noqa: ANN401 - a literal
    return "windowed" if isinstance(view, WindowView) else "batch"
