"""Applies partitions that no worker owns, so that their events are restored when the store loses states.

Imported history and partitions of a recreated stream have no owner, and an owner may have died. Any worker may apply
their logs, because each position is applied only once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import IMPORTED, log_partitions
from skewless.infra.online.port import Marker
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.streams.partition_worker import catch_up
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.state_writer import StateWriter


class IdlePartitions:
    """Applies partitions that other workers own or nobody owns, if they are behind.

    Args:
        writer: of the states.
        state: of the project.
        source: name of the event source.
    """

    def __init__(self, writer: StateWriter, state: ProjectState, source: str) -> None:
        self._writer = writer
        self._state = state
        self._source = source
        self._logs: dict[str, PartitionLog] = {}
        self._last_positions: dict[str, int | None] = {}
        self._complete: dict[str, Marker] = {}
        self._ends: dict[str, int] = {}

    def catch_up_stuck(self, own: Iterable[str], counts: SourceCounts, now_us: Callable[[], int]) -> None:
        """Apply partitions that are behind and have not advanced since the last call.

        Args:
            own: partitions to skip.
            counts: counts of the source.
            now_us: returns the time.

        Raises:
            StoreError: the store failed or is unavailable.
            ConflictError: the states include positions that a log does not have.
        """
        names = {*self._writer.partitions(), *log_partitions(self._state, self._source)} - set(own)
        # Time and ends are taken first: a watermark must not cover what arrives after them.
        time_us, ends = now_us(), {name: self._log(name).next_seq() - 1 for name in names}
        positions = self._find_behind(sorted(names))
        self._complete = {name: Marker(ends[name], time_us) for name in names - positions.keys()}
        # Only the second time: the owner of a partition may be applying it right now.
        stuck = [name for name, position in positions.items() if self._last_positions.get(name, "unknown") == position]
        self._last_positions = positions
        for name in stuck:
            self._apply(name, counts)

    def watermarks(self, live: Collection[str], foreign: Collection[str]) -> dict[str, Marker]:
        """Return watermarks of completely applied partitions without a stream.

        Args:
            live: partitions that the worker owns.
            foreign: names of the stream's partitions that other workers own or nobody owns yet; their owners report
                watermarks.
        """
        return {
            name: mark
            for name, mark in self._complete.items()
            if name not in live and (IMPORTED in name or name.rpartition("/")[2] not in foreign)
        }

    def catch_up(self, names: Sequence[str], counts: SourceCounts) -> None:
        """Apply the missing positions of some partitions now; raises the same errors as ``catch_up_stuck``."""
        for name in self._find_behind(names):
            self._apply(name, counts)

    def _apply(self, name: str, counts: SourceCounts) -> None:
        end = catch_up(self._log(name), self._writer, counts)
        if end >= 0:
            # Earlier records stay valid: the first record of a position counts.
            self._writer.record_end(self._log(name), 0, end)

    def _find_behind(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the applied position of each partition that is behind."""
        return {
            name: position
            for name, position in self._writer.read_positions(names).items()
            if position is None or position < self._log(name).next_seq() - 1 or not self._is_ended(name)
        }

    def _is_ended(self, name: str) -> bool:
        """Return whether the log has the end of all positions; a backfill, for example, does not record them."""
        end = self._log(name).next_seq()
        if self._ends.get(name) != end and self._log(name).has_all_ends():
            self._ends[name] = end
        return self._ends.get(name) == end

    def _log(self, name: str) -> PartitionLog:
        return self._logs.setdefault(name, PartitionLog(self._state, name))
