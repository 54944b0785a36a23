"""Detects that a store has lost rows, so that stale rows are not served as current ones (SEMANTICS 4.5)."""

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
    """The maximum age of a view's watermark.

    Args:
        view: hash of the view.
        markers: names of the view's markers; empty: the watermark is unknown.
        most_us: microseconds.
    """

    view: str
    markers: Sequence[str]
    most_us: int


class MarkerStatus(NamedTuple):
    """The state of the markers that were read together with some rows.

    Args:
        lost: names of markers that are missing or have gone back, and hashes of views whose watermark is too old.
            Rows of these views cannot be trusted.
        watermarks: by marker, the time up to which all arrived data has been applied, microseconds; 0: unknown.
    """

    lost: AbstractSet[str] = frozenset()
    watermarks: Mapping[str, int] = {}

    def watermark(self, markers: Iterable[str]) -> int:
        """Return the lowest watermark of some markers; 0 if one is unknown or there are none."""
        return min((self.watermarks.get(name, 0) for name in markers), default=0)

    def within(self, limits: Iterable[AgeLimit], t: int) -> MarkerStatus:
        """Return a copy in which views with a watermark too old at time ``t`` count as lost (SEMANTICS 8.4).

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
    """Opens connections to a store and calls back for each."""

    def on_connect(self, work: Callable[[], None]) -> None:
        """Register a callback for each new connection; it runs before anything is read over it."""
        ...


class MarkerHistory:
    """Remembers the highest position of each marker, and reports markers that have gone back.

    A reader may not have seen the latest position itself. So it also reads positions from the log: after it connects,
    because a server may have lost writes, and periodically, because it may not have read for a long time.

    Args:
        log: the applied positions in the logs; None: only markers that were read count.

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
        """Return a marker history that expects the positions that the project's finished runs have applied.

        Args:
            state: the project's state folder.
            plans: plans of the views to be read.
            reader: reads the log again after each new connection; None: the caller does it, or reads only once.
        """
        guard = cls(LogPositions(state))
        for plan in plans:
            guard.watch(plan)
        guard.renew()
        if reader is not None:
            reader.on_connect(guard.renew)
        return guard

    def watch(self, plan: FeaturePlan) -> None:
        """Also read positions of a plan's views from the log, from the next refresh on."""
        if self._log is not None:
            self._log.add(plan)

    def keep(self, plans: Iterable[FeaturePlan]) -> None:
        """Read positions of the views of these plans only: other views are no longer updated."""
        if self._log is not None:
            self._log.keep(plans)

    def renew(self) -> None:
        """Read the positions in the log. Call it for each new connection, before it is used; it reads files.

        Raises:
            StoreError: a file cannot be read.
        """
        self._expect(self._positions())

    async def renewed(self) -> None:
        """Do the same as ``renew`` without blocking the event loop."""
        self._expect(await asyncio.to_thread(self._positions))

    async def check(self, online: OnlineReader) -> set[str]:
        """Check that the store has applied all that the log says was applied; return the names of lost markers.

        The store is read after the log, so that a marker that advances in between is not reported.

        Raises:
            StoreError: a file cannot be read, or the store is unavailable.
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
        """Report a marker as lost while it is behind a position."""
        self._seen[name] = max(position, self._seen.get(name, position))

    def judge(self, names: Sequence[str], marks: Sequence[Marker | None]) -> MarkerStatus:
        """Return the status of markers that were read with rows, and remember their positions."""
        watermarks = {name: mark.watermark_us for name, mark in zip(names, marks, strict=True) if mark is not None}
        return MarkerStatus(self.lost(names, marks), watermarks)

    def lost(self, names: Sequence[str], marks: Sequence[Marker | None]) -> set[str]:
        """Return the names of markers that are missing or have gone back; remember the positions of the others."""
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
