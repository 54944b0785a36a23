"""Notices that a store has lost rows, so that what is left of a view is not taken for its truth (SEMANTICS 4.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from infra.log.known import last_covered
from infra.log.runs import RunLedger
from skewless.keys import marker_key
from skewless.plan import FeaturePlan


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
        return guard

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
