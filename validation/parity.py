"""Parity: compares online values of some entities with the accepted log, bit for bit (SEMANTICS 7.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.clock import Clock
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.windows.view import WindowView
from skewless.infra.models.verdicts.last_verdicts import LastParity, save_last
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.port import BlockingOnlineReader, OnlineStore
from skewless.validation.parity_checker import ParityChecker, ParityResult
from skewless.validation.parity_report import Mismatch, ParityReport, ViewParity
from skewless.validation.parity_tasks import COST, compare_on_engine, open_checker

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
        if self.engine is not None and self.engine.is_large(keys.num_rows, COST):
            report, rows = compare_on_engine(
                self.plan, view, keys, views=self.views, engine=self.engine, redis_url=self.redis_url
            )
            report.view = self.labels(view)
            if repair is not None:
                faulty = keys.take(int64_array(np.array(rows, np.int64)))
                report.left = _repair(checker, checker.check(faulty), repair) if rows else []
            return report
        result = checker.check(keys)
        compared = int(result.available.sum())
        report = ViewParity(
            view=self.labels(view),
            hash=view.hash,
            kind="windowed" if isinstance(view, WindowView) else "batch",
            at_us=result.at_us,
            compared=compared,
            unavailable=result.keys.num_rows - compared,
            mismatches=list(result.faults.values()),
        )
        if repair is not None:
            report.left = _repair(checker, result, repair)
        return report


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
