"""Housekeeping of logs and states, about once a minute: compacts small log files, removes unread states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.clock import Clock
from skewless.contract.plan import BUCKETS
from skewless.contract.windows.view import WindowView
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.generations import Generation, Generations
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import log_partitions
from skewless.infra.online.port import OnlineStore
from skewless.infra.online.window_states import lease_key
from skewless.infra.storage.leases import Leases
from skewless.infra.storage.project_state import ProjectState

# Longer than servers take to notice a new generation, and longer than their lease on the old one.
DRAIN_US = 60_000_000


@dataclass(frozen=True, kw_only=True)
class Housekeeper:
    """Keeps the logs and states of views in order; any number of workers may call it at any time.

    Args:
        buckets: number of buckets of the plan.
    """

    project: str
    state: ProjectState
    views: Sequence[WindowView]
    generations: Generations
    store: OnlineStore
    clock: Clock
    buckets: int = BUCKETS

    def run(self) -> None:
        """Compact logs and remove states that are due.

        Raises:
            StoreError: the disk or the store failed.
        """
        # One process at a time: another one would do the same work in vain.
        with Leases(self.state.database).try_hold("housekeeping of streams") as lease:
            if lease is None:
                return
            # The first view of a source decides the order of its events.
            for source, view in {view.source: view for view in reversed(self.views)}.items():
                order = BucketOrder(keys=view.keys, buckets=self.buckets)
                for name in log_partitions(self.state, source):
                    compact(PartitionLog(self.state, name), order=order)
            Catalog(self.state.database).delete_unread(self.state.storage)
            for view in self.views:
                self.retire(view)

    def retire(self, view: WindowView) -> int:
        """Remove generations that no server reads; return how many."""
        unread = [item for item in self.generations.list_all(view) if self._is_unread(view, item)]
        for item in unread:
            # The exclusive lock ensures that no worker still writes to the generation while it is deleted.
            with self.generations.hold_apply_lock(view.source, alone=True):
                self.generations.retire(view, item.number)
            self.store.delete(f"sk:{self.project}:{view.hash}.{item.number}:")
        return len(unread)

    def _is_unread(self, view: WindowView, item: Generation) -> bool:
        if item.stage not in {"draining", "given up"} or self.clock.now_us() - item.since_us < DRAIN_US:
            return False
        return self.store.get([lease_key(self.project, view, item.number)]) == [None]
