"""The partitions of a source that a worker does not own, and that must not be forgotten when the store loses states.

History that was imported, and streams that were deleted and made again, have no owner any more; an owner may have died.
Any worker may apply what their logs hold, since that is done once for each position, whoever does it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from skewless.infra.log.event_log import EventLog
from skewless.infra.log.partitions import IMPORTED, log_partitions
from skewless.infra.online.port import Marker
from skewless.infra.streams.partition_worker import catch_up
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.state_writer import StateWriter


class IdlePartitions:
    """Looks after partitions that others own, or nobody.

    Args:
        log_root: folder of all logs.
        source: name of the event source.
    """

    def __init__(self, writer: StateWriter, log_root: Path, source: str) -> None:
        self._writer = writer
        self._log_root = log_root
        self._source = source
        self._logs: dict[str, EventLog] = {}
        self._before: dict[str, int | None] = {}
        self._whole: dict[str, Marker] = {}
        self._ended: dict[str, int] = {}

    def look(self, own: Iterable[str], tally: SourceCounts, now_us: Callable[[], int]) -> None:
        """Apply what is missing of partitions that are behind and have not moved since the last look.

        Args:
            own: partitions to leave alone.

        Raises:
            StoreError: the store refused or is away.
            ConflictError: the states hold more than a log.
        """
        names = {*self._writer.partitions(), *log_partitions(self._log_root, self._source)} - set(own)
        moment, ends = now_us(), {name: self._log(name).next_seq() - 1 for name in names}
        behind = self._behind(sorted(names))
        self._whole = {name: Marker(ends[name], moment) for name in names - behind.keys()}
        stuck = [name for name, position in behind.items() if self._before.get(name, "unknown") == position]
        self._before = behind
        for name in stuck:
            self._apply(name, tally)

    def watermarks(self, live: Collection[str], foreign: Collection[str]) -> dict[str, Marker]:
        """Return, of the partitions into which no stream flows any more, those of which all was applied at a look.

        Args:
            live: partitions that the worker owns.
            foreign: names of the stream's partitions that others own, or nobody yet: those say for themselves.
        """
        return {
            name: mark
            for name, mark in self._whole.items()
            if name not in live and (IMPORTED in name or name.rpartition("/")[2] not in foreign)
        }

    def catch_up(self, names: Sequence[str], tally: SourceCounts) -> None:
        """Apply what is missing of some partitions now; raises as ``look``."""
        for name in self._behind(names):
            self._apply(name, tally)

    def _apply(self, name: str, tally: SourceCounts) -> None:
        end = catch_up(self._log(name), self._writer, tally)
        if end >= 0:
            # What was recorded before stands: the first record of a position counts.
            self._writer.note_end(self._log(name), 0, end)

    def _behind(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return up to where the states have the partitions of which something is missing."""
        return {
            name: position
            for name, position in self._writer.standing(names).items()
            if position is None or position < self._log(name).next_seq() - 1 or not self._is_ended(name)
        }

    def _is_ended(self, name: str) -> bool:
        """Say whether it is recorded when the applying of a partition ended; bootstrap, for one, records nothing."""
        end = self._log(name).next_seq()
        if self._ended.get(name) != end and self._log(name).has_all_ends():
            self._ended[name] = end
        return self._ended.get(name) == end

    def _log(self, name: str) -> EventLog:
        return self._logs.setdefault(name, EventLog(self._log_root, name))
