"""Notices that a store has lost rows, so that what is left of a view is not taken for its truth (SEMANTICS 4.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from infra.log.event_log import EventLog
from infra.log.known import last_covered
from infra.log.runs import RunLedger
from infra.streams.generations import Generations
from skewless.keys import marker_key, window_marker
from skewless.plan import FeaturePlan
from skewless.windows.view import WindowView


class Guard:
    """Remembers how far the marker of each view was, and says which has gone back.

    >>> guard = Guard()
    >>> [guard.lost(["m"], [seq]) for seq in (3, 5, 4, None, 5)]
    [set(), set(), {'m'}, {'m'}, set()]
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    @classmethod
    def of_runs(cls, state: Path, plans: Iterable[FeaturePlan]) -> Guard:
        """Return a guard that expects what the finished runs of a project have applied.

        Args:
            state: the project's state folder.
            plans: whose views are read.
        """
        guard, runs = cls(), RunLedger(state / "runs").runs()
        for plan in plans:
            for view in plan.views:
                guard.lost([marker_key(plan.project, view)], [last_covered(runs, view.partition)])
            for window in plan.windows:
                guard.expect_states(plan.project, window, state)
        return guard

    def expect_states(self, project: str, view: WindowView, state: Path) -> None:
        """Expect of the states that are read what was recorded as applied to them."""
        live = Generations(state).live(view)
        for partition in live.partitions if live else ():
            ends = EventLog(state / "log", partition).ends()
            # Positions that were compacted since are none to be lost: their markers are older than the file is.
            if live and ends.num_rows:
                name = window_marker(project, view, live.number, partition)
                self.lost([name], [ends["last"][-1].as_py()])

    def lost(self, names: Sequence[str], markers: Sequence[int | None]) -> set[str]:
        """Return the names of the markers that are gone or further back than they were; take note of the others."""
        gone = set()
        for name, marker in zip(names, markers, strict=True):
            seen = self._seen.get(name)
            if marker is None or (seen is not None and marker < seen):
                gone.add(name)
            else:
                self._seen[name] = marker
        return gone
