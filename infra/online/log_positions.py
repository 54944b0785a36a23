"""Reads from the logs how far each view was applied: a store with an older marker has lost writes (SEMANTICS 4.5)."""

from __future__ import annotations

from collections.abc import Iterable

from skewless.contract.errors import StoreError
from skewless.contract.keys import marker_key, window_marker
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import WindowView
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.generations import Generation, Generations
from skewless.infra.log.runs import RunLedger
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.telemetry.logger import EventLogger

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
        self._row_partitions: dict[str, str] = {}
        self._window_views: dict[str, tuple[str, WindowView]] = {}
        self._ends: dict[str, int] = {}
        self._covered: dict[str, int] | None = None  # nothing was read yet
        self._live: dict[str, Generation | None] = {}
        self._is_unavailable = False

    def add_plan(self, plan: FeaturePlan) -> None:
        """Also read positions of the views of a plan from now on."""
        self._row_partitions |= _row_partitions(plan)
        self._window_views |= _window_views(plan)

    def set_plans(self, plans: Iterable[FeaturePlan]) -> None:
        """Read positions of the views of these plans only: views that nobody reads may fall behind."""
        rows: dict[str, str] = {}
        windows: dict[str, tuple[str, WindowView]] = {}
        for plan in plans:
            rows |= _row_partitions(plan)
            windows |= _window_views(plan)
        self._row_partitions, self._window_views = rows, windows

    def read(self) -> dict[str, int]:
        """Return the last position that is recorded as applied, by marker name; -1: none.

        Raises:
            StoreError: a file cannot be read, or the database was never available.
        """
        # Copies, since another thread may add a plan meanwhile.
        row_partitions, window_views = dict(self._row_partitions), list(self._window_views.values())
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


def _row_partitions(plan: FeaturePlan) -> dict[str, str]:
    """Return the log partition of each view, by marker name."""
    return {marker_key(plan.project, view): view.partition for view in plan.views}


def _window_views(plan: FeaturePlan) -> dict[str, tuple[str, WindowView]]:
    return {window.hash: (plan.project, window) for window in plan.windows}
