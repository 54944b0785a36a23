"""Parity: compares online values of some entities with the accepted log, bit for bit (SEMANTICS 7.1).

Many entities are compared by tasks: each compares those of its buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.clock import Clock, open_clock
from skewless.contract.columns import digest
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.status import Int64Array
from skewless.contract.windows.view import WindowView
from skewless.infra.models.verdicts.last_verdicts import LastParity, save_last
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import read_json, write_json, write_table
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.engines.view_reads import bucket_rows, plan_of, read_buckets, sort_by_bucket
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.port import BlockingOnlineReader, OnlineStore
from skewless.infra.reads.online.store import open_blocking_reader
from skewless.validation.parity_checker import ParityChecker, ParityResult
from skewless.validation.parity_report import Mismatch, ParityFault, ParityReport, ViewParity
from skewless.validation.parity_rows import RowParity
from skewless.validation.parity_windows import WindowParity

# An entity is read from the online store, and computed from all its events or rows in the log.
_COST = 1_000
_RESTORED_KEYS = 100_000  # of one comparison, which scans the keys of the whole log
_ROUNDS = 4  # repeats of the comparison for states that a worker changes meanwhile


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Compares the online store with the log; workers may run meanwhile.

    Args:
        state: the project's state folder, which stores the verdict.
        reader: reader of the online store.
        engine: engine for many entities, which needs ``redis_url``; None: all work is done in this process.
        redis_url: of the online store.
    """

    plan: FeaturePlan
    state: ProjectState
    views: OfflineViews
    reader: BlockingOnlineReader
    clock: Clock
    labels: Callable[[View | WindowView], str] = attrgetter("name")
    engine: Engine | None = None
    redis_url: str = field(default="", repr=False)

    def run(
        self, names: Sequence[str] = (), *, sample: int = 1_000, seed: int = 0, repair: OnlineStore | None = None
    ) -> ParityReport:
        """Compare entities of some views, or of all views; store the verdict.

        Args:
            sample: number of entities of each view.
            seed: seed of the sample.
            repair: the store in which to repair mismatches from the log; None: no repair.

        Raises:
            RequestError: the view does not exist.
            StoreError: the store does not answer, or a log file is corrupt.
        """
        report = ParityReport(views=[self._check_view(view, sample, seed, repair) for view in self.select_views(names)])
        save_last(self.state, LastParity, [view.verdict() for view in report.views])
        return report

    def restore(self, view: View, keys: pa.Table, store: OnlineStore) -> int:
        """Let the online rows of some keys be those of the log; return how many were deleted: the log has none of them.

        Args:
            keys: key columns, without nulls, distinct.

        Raises:
            StoreError: the store does not answer, or a log file is corrupt.
        """
        checker = open_checker(self.plan, view, views=self.views, reader=self.reader, clock=self.clock)
        removed = 0
        for batch in keys.to_batches(_RESTORED_KEYS):
            part = pa.Table.from_batches([batch])
            _repair(checker, checker.check(part), store)
            result = checker.check(part)
            stored = result.stored if result.available.all() else store.get(result.names)
            # Not a row that was written since: this process may have been suspended.
            is_wrong = [row in result.faults or not result.available[row] for row in range(len(stored))]
            old = {n: v for n, v, wrong in zip(result.names, stored, is_wrong, strict=True) if wrong and v is not None}
            removed += int(store.replace(list(old), list(old.values()), [b""] * len(old)).sum())
        return removed

    def select_views(self, names: Sequence[str]) -> list[View | WindowView]:
        """Return the views of some names; all views without names.

        Raises:
            RequestError: the view does not exist.
        """
        views = {self.labels(view): view for view in self.plan.all_views}
        for name in names:
            check_known("view", name, views)
        return [views[name] for name in dict.fromkeys(names or views)]

    def _check_view(self, view: View | WindowView, sample: int, seed: int, repair: OnlineStore | None) -> ViewParity:
        checker = open_checker(self.plan, view, views=self.views, reader=self.reader, clock=self.clock)
        keys = checker.sample(sample, seed)
        report = ViewParity(
            view=self.labels(view),
            hash=view.hash,
            kind="windowed" if isinstance(view, WindowView) else "batch",
            at_us=0,
            compared=0,
            unavailable=0,
        )
        faults: list[tuple[int, Mismatch]] = []
        for part in self._compare(view, checker, keys):
            report.at_us = max(report.at_us, part["at_us"])
            report.compared += part["compared"]
            report.unavailable += part["unavailable"]
            faults += [(row, Mismatch(**{**item, "cause": ParityFault(item["cause"])})) for row, item in part["faults"]]
        faults.sort(key=lambda fault: fault[0])
        report.mismatches = [fault for _, fault in faults]
        if repair is not None:
            faulty = keys.take(int64_array(np.array([row for row, _ in faults], np.int64)))
            report.left = _repair(checker, checker.check(faulty), repair) if faults else []
        return report

    def _compare(self, view: View | WindowView, checker: ParityChecker, keys: pa.Table) -> Iterator[dict[str, Any]]:
        """Yield the results of ``compare_keys`` for parts of the keys."""
        engine, storage = self.engine, self.views.state.storage
        if engine is None or not engine.is_large(keys.num_rows, _COST):
            yield compare_keys(checker, keys, np.arange(keys.num_rows))
            return
        alone, columns = plan_of(view, self.plan.project, self.plan.buckets), [column.name for column in view.keys]

        def plan_tasks() -> Sequence[Task]:
            # No two runs have one identity: the online store changes.
            snapshot = {"at_us": self.views.state.database.now_us()}
            folder = f"inputs-{digest([alone.hash, snapshot])}"
            stored = write_table(storage, folder, sort_by_bucket(keys, columns, alone.buckets))
            return engine.split(
                "parity",
                alone.buckets,
                connection=self.views.connection,
                plan=alone.hash,
                snapshot=snapshot,
                parameters={"plan": alone.as_dict()},
                inputs=(stored,),
                secrets={"redis_url": self.redis_url},
            )

        with engine.run("parity", "comparing states", keys.num_rows, plan_tasks) as results:
            for result in results:
                yield read_json(storage, result.objects[0])


def _repair(checker: ParityChecker, result: ParityResult, store: OnlineStore) -> list[Mismatch]:
    """Repair the mismatches that can be repaired; return the remaining mismatches."""
    remaining = [fault for fault in result.faults.values() if not fault.repairable]
    for _ in range(_ROUNDS):
        if not result.repairable:
            return remaining
        checker.repair(result, store)
        # A value that was changed meanwhile was not replaced, so it is compared again.
        result = checker.check(result.keys.take(pa.array(result.repairable)))
        remaining += [fault for fault in result.faults.values() if not fault.repairable]
    return remaining + [fault for fault in result.faults.values() if fault.repairable]


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


def compare_keys(checker: ParityChecker, keys: pa.Table, rows: Int64Array) -> dict[str, Any]:
    """Return the parity of some entities as plain values; each fault has the number of its entity in ``rows``."""
    result = checker.check(keys)
    compared = int(result.available.sum())
    return {
        "at_us": result.at_us,
        "compared": compared,
        "unavailable": keys.num_rows - compared,
        "faults": sorted((int(rows[row]), asdict(fault)) for row, fault in result.faults.items()),
    }


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
            body = compare_keys(checker, rows.select([column.name for column in view.keys]), bucket_rows(rows))
    stored = write_json(views.state.storage, task.job, body)
    checked = digest({name: value for name, value in body.items() if name != "at_us"})
    return TaskResult(
        objects=(stored,),
        rows=rows.num_rows,
        digest=checked,
        basis=str(body["at_us"]),  # the online store of that time
    )
