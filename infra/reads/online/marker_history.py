"""Detects that a store has lost rows, so that stale rows are not served as current ones (SEMANTICS 4.5).

A store has lost writes if a marker is older than before, or older than the logs say that its view was applied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import NamedTuple

from skewless.contract.errors import StoreError
from skewless.contract.keys import marker_key, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.generations import Generation, Generations
from skewless.infra.log.runs import RunLedger
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.port import Marker, OnlineReader

_log = EventLogger()


class LogPositions:
    """Reads the last applied positions from the run ledger and the catalog of the logs; thread-safe.

    It caches what it has read, and reads only what was added since. While the database is unavailable, its last values
    count.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._catalog = Catalog(state.database)
        self._ledger = RunLedger(state.database)
        self._generations = Generations(state)
        self._plans: tuple[FeaturePlan, ...] = ()
        self._ends: dict[str, int] = {}
        self._covered: dict[str, int] | None = None  # nothing was read yet
        self._live: dict[str, Generation | None] = {}
        self._is_unavailable = False

    def add_plan(self, plan: FeaturePlan) -> None:
        """Also read positions of the views of a plan from now on."""
        self._plans += (plan,) if plan not in self._plans else ()

    def set_plans(self, plans: Iterable[FeaturePlan]) -> None:
        """Read positions of the views of these plans only: views that nobody reads may fall behind."""
        self._plans = tuple(plans)

    def read(self) -> dict[str, int]:
        """Return the last position that is recorded as applied, by marker name; -1: none.

        Raises:
            StoreError: a file cannot be read, or the database was never available.
        """
        plans = self._plans  # another thread may add a plan meanwhile
        row_partitions = {marker_key(plan.project, view): view.partition for plan in plans for view in plan.views}
        window_views = {view.hash: (plan.project, view) for plan in plans for view in plan.windows}.values()
        try:
            if row_partitions:
                self._covered = self._ledger.last_positions()
            self._live |= {view.hash: self._generations.find_live(view) for _, view in window_views}
            partitions = sorted({name for live in self._live.values() for name in (live.partitions if live else ())})
            self._ends |= self._catalog.last_applied(partitions) if partitions else {}
            self._is_unavailable = False
        except StoreError as error:
            has_read = self._covered is not None or not row_partitions
            if not has_read or any(view.hash not in self._live for _, view in window_views):
                raise
            if not self._is_unavailable:
                self._is_unavailable = True
                _log.warning("log_positions_not_read", error=str(error))
        covered = self._covered or {}
        positions = {marker: covered.get(partition, -1) for marker, partition in row_partitions.items()}
        for project, view in window_views:
            live = self._live[view.hash]
            for partition in live.partitions if live else ():
                if live and (end := self._ends.get(partition, -1)) >= 0:
                    positions[window_marker(project, view, live.number, partition)] = end
        return positions

    def read_ends(self, names: Iterable[str]) -> dict[str, int]:
        """Return the last position in the log by marker name, for views of latest values; empty: it cannot be read."""
        partitions = {marker_key(plan.project, view): view.partition for plan in self._plans for view in plan.views}
        with suppress(StoreError):
            return {name: self._catalog.next_seq(partitions[name]) - 1 for name in names if name in partitions}
        return {}


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

    def limit_age(self, view: str, markers: Collection[str], max_us: int, t: int) -> MarkerStatus:
        """Return a copy in which a view counts as lost if its watermark is too old at time ``t`` (SEMANTICS 8.4).

        >>> sorted(MarkerStatus(frozenset(), {"m": 5}).limit_age("v", ["m"], 2, 9).lost)
        ['m', 'v']

        Args:
            view: hash of the view.
            markers: names of the view's markers; empty: the watermark is unknown.
            max_us: the maximum age of the watermark, microseconds; 0: any.
        """
        if not max_us or t - self.watermark(markers) <= max_us:
            return self
        return MarkerStatus(self.lost | {view, *markers}, self.watermarks)


class MarkerHistory:
    """Remembers the highest position of each marker, and reports markers that have gone back.

    A reader may not have seen the latest position itself. So it also reads positions from the log: after it connects,
    because a server may have lost writes, and periodically, because it may not have read for a long time.

    Args:
        log: the applied positions in the logs; None: only markers that were read count.

    >>> marker_history = MarkerHistory()
    >>> [marker_history.find_lost(["m"], [None if seq is None else Marker(seq)]) for seq in (3, 5, 4, None, 5)]
    [set(), set(), {'m'}, {'m'}, set()]
    """

    def __init__(self, log: LogPositions | None = None) -> None:
        self._log = log
        self._highest: dict[str, int] = {}
        self._last: tuple[Sequence[str], Sequence[Marker | None], MarkerStatus] | None = None

    @classmethod
    def from_runs(
        cls,
        state: ProjectState,
        plans: Iterable[FeaturePlan],
        on_connect: Callable[[Callable[[], None]], None] | None = None,
    ) -> MarkerHistory:
        """Return a marker history that expects the positions that the project's finished runs have applied.

        Args:
            state: the project's state folder.
            plans: plans of the views to be read.
            on_connect: registers a callback for each new connection, which reads the log again; None: the caller does
                it, or reads only once.
        """
        marker_history = cls(LogPositions(state))
        marker_history.set_plans(plans)
        marker_history.refresh()
        if on_connect is not None:
            on_connect(marker_history.refresh)
        return marker_history

    def add_plan(self, plan: FeaturePlan) -> None:
        """Also read positions of a plan's views from the log, from the next refresh on."""
        if self._log is not None:
            self._log.add_plan(plan)

    def set_plans(self, plans: Iterable[FeaturePlan]) -> None:
        """Read positions of the views of these plans only: other views are no longer updated."""
        if self._log is not None:
            self._log.set_plans(plans)

    def refresh(self) -> None:
        """Read the positions in the log. Call it for each new connection, before it is used; it may wait.

        Raises:
            StoreError: a file cannot be read, or the database was never available.
        """
        self._expect_all(self._read_positions())

    async def refresh_async(self) -> None:
        """Do the same as ``refresh`` without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - a command that reads no store does without

        self._expect_all(await asyncio.to_thread(self._read_positions))

    async def check(self, online: OnlineReader) -> set[str]:
        """Check that the store has applied all that the log says was applied; return the names of lost markers.

        The store is read after the log, so that a marker that advances in between is not reported.

        Raises:
            StoreError: a file cannot be read, or the store or the database is unavailable.
        """
        import asyncio  # noqa: PLC0415 - a command that reads no store does without

        positions = await asyncio.to_thread(self._read_positions)
        self._last = None  # a position may have been forgotten
        # Positions that a read has seen were checked together with its rows.
        new_positions = {
            name: position for name, position in positions.items() if position > self._highest.get(name, -1)
        }
        if not new_positions:
            return set()
        _, markers = await online.get_with_markers([], list(new_positions))
        for (name, position), marker in zip(new_positions.items(), markers, strict=True):
            if marker is None or marker.position < position:
                # Otherwise a marker that this process never read would count as new, not as behind.
                self.expect(name, position)
        return self.find_lost(list(new_positions), markers)

    def expect(self, name: str, position: int) -> None:
        """Report a marker as lost while it is behind a position."""
        self._highest[name] = max(position, self._highest.get(name, position))
        self._last = None

    def check_markers(self, names: Sequence[str], markers: Sequence[Marker | None]) -> MarkerStatus:
        """Return the status of markers that were read with rows, and remember their positions."""
        last = self._last
        # The same object as in the last read: a reader gives it while the markers have not changed.
        if last is not None and markers is last[1] and names == last[0]:
            return last[2]
        watermarks = {
            name: marker.watermark_us for name, marker in zip(names, markers, strict=True) if marker is not None
        }
        status = MarkerStatus(self.find_lost(names, markers), watermarks)
        self._last = list(names), markers, status
        return status

    def find_lost(self, names: Sequence[str], markers: Sequence[Marker | None]) -> set[str]:
        """Return the names of markers that are missing or have gone back; remember the positions of the others."""
        self._last = None
        lost_names = set()
        for name, marker in zip(names, markers, strict=True):
            highest = self._highest.get(name)
            if marker is None or (highest is not None and marker.position < highest):
                # The highest position stays, so the marker counts as lost until it has caught up.
                lost_names.add(name)
            else:
                self._highest[name] = marker.position
        return lost_names

    def _read_positions(self) -> dict[str, int]:
        """Return the applied positions in the log; forget positions of markers that the log does not have.

        Such a marker was corrupt, or of another log; its view would count as lost for ever after a repair.
        """
        if self._log is None:
            return {}
        seen, positions = dict(self._highest), self._log.read()
        ends = self._log.read_ends(each for each in positions if seen.get(each, -1) > positions[each])
        # A log only grows, so a marker that was seen before its end was read cannot be beyond it.
        self._highest |= {name: end for name, end in ends.items() if seen[name] > end}
        return positions

    def _expect_all(self, positions: Mapping[str, int]) -> None:
        for name, position in positions.items():
            self.expect(name, position)
