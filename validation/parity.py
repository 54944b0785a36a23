"""Parity: what the online store holds for some entities, computed again from the accepted log, bit for bit (7.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.windows.view import WindowView
from skewless.infra.offline.views import OfflineViews
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import BlockingOnlineReader, OnlineStore
from skewless.infra.verdicts.last_verdicts import save_parity
from skewless.validation.parity_checker import ParityChecker, ParityResult
from skewless.validation.parity_report import Mismatch, ParityReport, ViewParity
from skewless.validation.parity_rows import RowParity
from skewless.validation.parity_windows import WindowParity

_ROUNDS = 4  # a state that a worker changes meanwhile is compared again


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Holds the online store against the log; workers may go on meanwhile.

    Args:
        state: the project's state folder, where the verdict is kept.
        reader: of the online store.
    """

    plan: FeaturePlan
    state: Path
    views: OfflineViews
    reader: BlockingOnlineReader
    clock: Clock
    labels: Callable[[View | WindowView], str] = attrgetter("name")

    def run(
        self, names: Sequence[str] = (), *, sample: int = 1_000, seed: int = 0, repair: OnlineStore | None = None
    ) -> ParityReport:
        """Compare entities of some views, or of all; keep the verdict.

        Args:
            sample: how many entities of each view.
            seed: chooses which.
            repair: the store to put the log's answer into where it is not what is held.

        Raises:
            RequestError: there is no such view.
            StoreError: the store is away, or a log file is damaged.
        """
        report = ParityReport(views=[self._view(view, sample, seed, repair) for view in self.chosen(names)])
        save_parity(self.state, [view.verdict() for view in report.views])
        return report

    def chosen(self, names: Sequence[str]) -> list[View | WindowView]:
        """Return the views of some names; none: all.

        Raises:
            RequestError: there is no such view.
        """
        known = {self.labels(view): view for view in self.plan.all_views}
        for name in names:
            check_known("view", name, known)
        return [known[name] for name in dict.fromkeys(names or known)]

    def checker(self, view: View | WindowView) -> ParityChecker:
        """Return what compares a view."""
        marker_history = MarkerHistory.from_runs(self.state, [self.plan])
        project = self.plan.project
        if isinstance(view, WindowView):
            return WindowParity(
                project=project,
                view=view,
                views=self.views,
                reader=self.reader,
                marker_history=marker_history,
                clock=self.clock,
            )
        return RowParity(
            project=project,
            view=view,
            views=self.views,
            reader=self.reader,
            marker_history=marker_history,
            clock=self.clock,
        )

    def _view(self, view: View | WindowView, sample: int, seed: int, repair: OnlineStore | None) -> ViewParity:
        checker = self.checker(view)
        checked = checker.check(checker.sample(sample, seed))
        compared = int(checked.available.sum())
        report = ViewParity(
            view=self.labels(view),
            hash=view.hash,
            kind="windowed" if isinstance(view, WindowView) else "batch",
            at_us=checked.at_us,
            compared=compared,
            unavailable=checked.keys.num_rows - compared,
            mismatches=list(checked.faults.values()),
        )
        if repair is not None:
            report.left = _repaired(checker, checked, repair)
        return report


def _repaired(checker: ParityChecker, checked: ParityResult, store: OnlineStore) -> list[Mismatch]:
    """Repair what can be; return the mismatches that are left."""
    left = [fault for fault in checked.faults.values() if not fault.repairable]
    for _ in range(_ROUNDS):
        if not checked.repairable:
            return left
        checker.repair(checked, store)
        # What was changed meanwhile was not replaced: it is judged as it is now.
        checked = checker.check(checked.keys.take(pa.array(checked.repairable)))
        left += [fault for fault in checked.faults.values() if not fault.repairable]
    return left + [fault for fault in checked.faults.values() if fault.repairable]
