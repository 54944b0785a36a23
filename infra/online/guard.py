"""Notices that a store has lost rows, so that what is left of a view is not taken for its truth (SEMANTICS 4.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from infra.log.event_log import EventLog
from infra.log.known import last_covered
from infra.log.runs import RunLedger
from infra.online.port import Mark
from infra.streams.generations import Generations
from skewless.keys import marker_key, window_marker
from skewless.plan import FeaturePlan
from skewless.windows.view import WindowView


class Limit(NamedTuple):
    """How old the watermark of a view may be.

    Args:
        view: hash of the view.
        markers: that vouch for it; none: nobody has said anything of it yet.
        most_us: microseconds.
    """

    view: str
    markers: Sequence[str]
    most_us: int


class Standing(NamedTuple):
    """What the markers that were read with some rows say of them.

    Args:
        lost: markers that are gone or have gone back, and hashes of views whose watermark is too old: what these views
            hold is not to be believed.
        watermarks: by marker, up to when all that had arrived is in what was read, microseconds; 0: unknown.
    """

    lost: AbstractSet[str] = frozenset()
    watermarks: Mapping[str, int] = {}

    def watermark(self, markers: Iterable[str]) -> int:
        """Return the least watermark of some markers; 0: one is unknown, or there is none."""
        return min((self.watermarks.get(name, 0) for name in markers), default=0)

    def within(self, limits: Iterable[Limit], t: int) -> Standing:
        """Return the same, but that views whose watermark is too old at a time count as lost (SEMANTICS 8.4).

        >>> sorted(Standing(frozenset(), {"m": 5, "n": 7}).within([Limit("v", ["m"], 2), Limit("w", ["n"], 2)], 9).lost)
        ['m', 'v']
        """
        lost = self.lost
        for view, markers, most in limits:
            if t - self.watermark(markers) > most:
                lost = lost | {view, *markers}
        return Standing(lost, self.watermarks)


class Guard:
    """Remembers how far the marker of each view was, and says which has gone back.

    >>> guard = Guard()
    >>> [guard.lost(["m"], [None if seq is None else Mark(seq)]) for seq in (3, 5, 4, None, 5)]
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
                guard.expect(marker_key(plan.project, view), last_covered(runs, view.partition))
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
                self.expect(name, ends["last"][-1].as_py())

    def expect(self, name: str, position: int) -> None:
        """Take a marker that is further back than a position for one that has gone back."""
        self._seen[name] = max(position, self._seen.get(name, position))

    def judge(self, names: Sequence[str], marks: Sequence[Mark | None]) -> Standing:
        """Return what markers say of the rows that were read with them; take note of how far they are."""
        watermarks = {name: mark.watermark_us for name, mark in zip(names, marks, strict=True) if mark is not None}
        return Standing(self.lost(names, marks), watermarks)

    def lost(self, names: Sequence[str], marks: Sequence[Mark | None]) -> set[str]:
        """Return the names of the markers that are gone or further back than they were; take note of the others."""
        gone = set()
        for name, mark in zip(names, marks, strict=True):
            seen = self._seen.get(name)
            if mark is None or (seen is not None and mark.position < seen):
                gone.add(name)
            else:
                self._seen[name] = mark.position
        return gone
