"""Housekeeping of logs and states, about once a minute: compacts small log files, removes unread states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.generations import Generation
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import log_partitions
from skewless.infra.online.port import OnlineStore
from skewless.infra.online.window_states import lease_key
from skewless.infra.storage.leases import Leases
from skewless.infra.streams.streams import Streams

# Longer than servers take to notice a new generation, and longer than their lease on the old one.
DRAIN_US = 60_000_000


@dataclass(frozen=True, kw_only=True)
class Housekeeper:
    """Keeps the logs and states of views in order; any number of workers may call it at any time."""

    streams: Streams
    sources: Sequence[EventSource]
    store: OnlineStore

    def run(self) -> None:
        """Compact logs and remove states that are due.

        Raises:
            StoreError: the disk or the store failed.
        """
        state = self.streams.state
        # One process at a time: another one would do the same work in vain.
        with Leases(state.database).try_hold("housekeeping of streams") as lease:
            if lease is None:
                return
            views = [view for source in self.sources for view in self.streams.views(source.name)]
            for source in sorted({view.source for view in views}):
                for name in log_partitions(state, source):
                    compact(PartitionLog(state, name))
            Catalog(state.database).delete_unread(state.storage)
            for view in views:
                self.retire(view)

    def retire(self, view: WindowView) -> int:
        """Remove generations that no server reads; return how many."""
        unread = [item for item in self.streams.generations.list_all(view) if self._is_unread(view, item)]
        for item in unread:
            # The exclusive lock ensures that no worker still writes to the generation while it is deleted.
            with self.streams.generations.hold_apply_lock(view.source, alone=True):
                self.streams.generations.retire(view, item.number)
            self.store.delete(f"sk:{self.streams.plan.project}:{view.hash}.{item.number}:")
        return len(unread)

    def _is_unread(self, view: WindowView, item: Generation) -> bool:
        if item.stage not in {"draining", "given up"} or self.streams.clock.now_us() - item.since_us < DRAIN_US:
            return False
        return self.store.get([lease_key(self.streams.plan.project, view, item.number)]) == [None]
