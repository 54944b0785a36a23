"""Notices that a store has lost rows, so that what is left of a view is not taken for its truth (SEMANTICS 4.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple, Protocol

from skewless.contract.plan import FeaturePlan
from skewless.infra.online.log_positions import LogPositions
from skewless.infra.online.port import Marker, OnlineReader


class AgeLimit(NamedTuple):
    """How old the watermark of a view may be.

    Args:
        view: hash of the view.
        markers: that vouch for it; none: nobody has said anything of it yet.
        most_us: microseconds.
    """

    view: str
    markers: Sequence[str]
    most_us: int


class MarkerStatus(NamedTuple):
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

    def within(self, limits: Iterable[AgeLimit], t: int) -> MarkerStatus:
        """Return the same, but that views whose watermark is too old at a time count as lost (SEMANTICS 8.4).

        >>> limits = [AgeLimit("v", ["m"], 2), AgeLimit("w", ["n"], 2)]
        >>> sorted(MarkerStatus(frozenset(), {"m": 5, "n": 7}).within(limits, 9).lost)
        ['m', 'v']
        """
        lost = self.lost
        for view, markers, most in limits:
            if t - self.watermark(markers) > most:
                lost = lost | {view, *markers}
        return MarkerStatus(lost, self.watermarks)


class ConnectionFactory(Protocol):
    """Makes connections to a store, and tells of each."""

    def on_connect(self, work: Callable[[], None]) -> None:
        """Have something done whenever a connection was made, before anything is read over it."""
        ...


class MarkerHistory:
    """Remembers how far the marker of each view was, and says which has gone back.

    What a reader has not seen itself it asks the log: when it connects, since the server that it finds may have lost
    writes, and from time to time, since it may have read nothing for long.

    Args:
        log: how far views were applied; None: only what was read counts.

    >>> guard = MarkerHistory()
    >>> [guard.lost(["m"], [None if seq is None else Marker(seq)]) for seq in (3, 5, 4, None, 5)]
    [set(), set(), {'m'}, {'m'}, set()]
    """

    def __init__(self, log: LogPositions | None = None) -> None:
        self._log = log
        self._seen: dict[str, int] = {}

    @classmethod
    def of_runs(
        cls, state: Path, plans: Iterable[FeaturePlan], reader: ConnectionFactory | None = None
    ) -> MarkerHistory:
        """Return a guard that expects what the finished runs of a project have applied.

        Args:
            state: the project's state folder.
            plans: whose views are read.
            reader: whose connections have the log asked again; None: the caller sees to that, or reads but once.
        """
        guard = cls(LogPositions(state))
        for plan in plans:
            guard.watch(plan)
        guard.renew()
        if reader is not None:
            reader.on_connect(guard.renew)
        return guard

    def watch(self, plan: FeaturePlan) -> None:
        """Ask the log for the views of a plan too, whenever it is asked from now on."""
        if self._log is not None:
            self._log.add(plan)

    def keep(self, plans: Iterable[FeaturePlan]) -> None:
        """Ask the log for the views of these plans alone from now on: others are fed no more."""
        if self._log is not None:
            self._log.keep(plans)

    def renew(self) -> None:
        """Expect what the log says by now; reads files. Call it when a connection was made, before it is used.

        Raises:
            StoreError: the disk refused.
        """
        self._expect(self._positions())

    async def renewed(self) -> None:
        """Do as ``renew`` does, beside the event loop."""
        self._expect(await asyncio.to_thread(self._positions))

    async def check(self, online: OnlineReader) -> set[str]:
        """Look whether the store has what the log says was applied since this reader last saw it; return what is lost.

        The store is asked after the log was read, so that a marker that only now moves is no loss.

        Raises:
            StoreError: the disk refused, or the store is away.
        """
        positions = await asyncio.to_thread(self._positions)
        news = {name: position for name, position in positions.items() if position > self._seen.get(name, -1)}
        if not news:
            return set()
        _, marks = await online.get_marked([], list(news))
        for (name, position), mark in zip(news.items(), marks, strict=True):
            if mark is None or mark.position < position:
                self.expect(name, position)
        return self.lost(list(news), marks)

    def expect(self, name: str, position: int) -> None:
        """Take a marker that is further back than a position for one that has gone back."""
        self._seen[name] = max(position, self._seen.get(name, position))

    def judge(self, names: Sequence[str], marks: Sequence[Marker | None]) -> MarkerStatus:
        """Return what markers say of the rows that were read with them; take note of how far they are."""
        watermarks = {name: mark.watermark_us for name, mark in zip(names, marks, strict=True) if mark is not None}
        return MarkerStatus(self.lost(names, marks), watermarks)

    def lost(self, names: Sequence[str], marks: Sequence[Marker | None]) -> set[str]:
        """Return the names of the markers that are gone or further back than they were; take note of the others."""
        gone = set()
        for name, mark in zip(names, marks, strict=True):
            seen = self._seen.get(name)
            if mark is None or (seen is not None and mark.position < seen):
                gone.add(name)
            else:
                self._seen[name] = mark.position
        return gone

    def _positions(self) -> dict[str, int]:
        return self._log.read() if self._log is not None else {}

    def _expect(self, positions: Mapping[str, int]) -> None:
        for name, position in positions.items():
            self.expect(name, position)
