"""The log partitions of a source: a worker's own with its progress, and partitions without an owner."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.ingest.streams.decider import EventDecider
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.ingest.streams.event_ids import EventIds
from skewless.infra.ingest.streams.port import Messages, Partition
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.state_writer import PENDING_US, Selected, StateWriter
from skewless.infra.log.catalog import IMPORTED, End, Segment, log_partitions
from skewless.infra.log.daily_counts import RowCounts
from skewless.infra.log.log_columns import EVENT, EVENT_ID, REJECT, SEQ, SOURCE_POS
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import Marker

_BLOCK = 10_000  # rows that are read together


@dataclass(kw_only=True, eq=False)
class PartitionWorker:
    """Processes one partition step by step (SEMANTICS 4.1).

    Args:
        partition: of the stream.
        log: of the partition; its end is read once, here.
        decoder: of the source.
        ids: of the source, shared by its partitions.
        behind: the log may have rows that the states lack.
        applied: the last applied position.
        first_unended: the first applied position whose end is not recorded yet; None: all are recorded.
        end_us: when the applied positions from there on had been applied, microseconds; None: a needed view lacks them.
        drained_us: time up to which all messages that had arrived were read, microseconds; 0: unknown.
    """

    partition: Partition
    log: PartitionLog
    decoder: Decoder
    ids: EventIds
    behind: bool = True
    applied: int = -1
    first_unended: int | None = None
    end_us: int | None = None
    drained_us: int = 0

    def __post_init__(self) -> None:
        """Read the end of the log."""
        self._payloads: list[bytes | None] = []
        self._positions: list[int] = []
        self._watermark: int | None = None
        self._end = self.log.next_seq()
        # The next position to read in the stream; None: from its beginning.
        self.next_position = self._last_position()

    @property
    def waiting(self) -> int:
        """Number of messages that wait for the next batch."""
        return len(self._positions)

    @property
    def watermark_us(self) -> int:
        """Time up to which all messages that had arrived have been applied, microseconds; 0: unknown."""
        # A waiting message has arrived, but is not applied.
        return 0 if self.behind or self._positions else self.drained_us

    @property
    def unrecorded_end(self) -> End | None:
        """The end of the application of the last batches, if it is known and not recorded yet."""
        first, end_us = self.first_unended, self.end_us
        return None if first is None or end_us is None else (first, self.applied, end_us)

    def set_decoder(self, decoder: Decoder) -> None:
        """Use another definition of the source from now on; new views may lack events."""
        self.decoder = decoder
        # Catching up gives new views the rows that they lack, and their markers.
        self.behind = True

    def add_messages(self, messages: Messages) -> None:
        """Queue messages for the next batch."""
        self._payloads += messages.payloads
        self._positions += messages.positions

    def read_positions(self, first: int) -> set[int]:
        """Return the stream's positions from ``first`` on whose rows in the log a repeat would count twice.

        Raises:
            ConflictError: another worker wrote to the partition and owns it now.
            StoreError: the log cannot be read.
        """
        self.log.check_end(self._end)
        positions, end, is_before = set[int](), self._end, False
        while end > 0 and not is_before:
            begin = max(0, end - _BLOCK)
            rows = pa.concat_tables(self.log.read(begin, end - 1, [SOURCE_POS, EVENT_ID]))
            new = rows.filter(pc.greater_equal(rows[SOURCE_POS], first))
            positions |= set(new.filter(new[EVENT_ID].is_null())[SOURCE_POS].to_pylist())
            end, is_before = begin, new.num_rows < rows.num_rows
        return positions

    def accept(self, now_us: int, counts: SourceCounts) -> pa.Table | None:
        """Validate waiting messages and append them to the log; return the numbered rows, None if there are none.

        Raises:
            ConflictError: another worker wrote to the partition and owns it now.
            StoreError: the log cannot be written; nothing was accepted, so the call can be repeated.
        """
        if not self._positions:
            return None
        decoded = self.decoder.decode(self._payloads, self._positions, now_us)
        return self._note_accepted(*self._append(decoded, now_us), now_us, counts)

    def decide_and_accept(
        self, decider: EventDecider, now_us: int, counts: SourceCounts, pool: Executor
    ) -> tuple[pa.Table, Selected] | None:
        """Do as ``accept``, and decide the rows while another thread appends them; no decision is logged before them.

        Returns:
            The numbered rows, and what ``EventDecider.decide`` returns; None: there are none.

        Raises:
            ConflictError, StoreError: as ``accept``.
        """
        if not self._positions:
            return None
        decoded = self.decoder.decode(self._payloads, self._positions, now_us)
        new: Future[pa.Table] = Future()
        appended = pool.submit(self._append, decoded, now_us, new.set_result)
        # An append that fails before it knows the new rows would be waited for in vain.
        wait((new, appended), return_when=FIRST_COMPLETED)

        @cache
        def finish() -> None:
            self._note_accepted(*appended.result(), now_us, counts)

        try:
            if not new.done() or not new.result().num_rows:
                return None
            rows = new.result().append_column(SEQ, self._number(new.result().num_rows))
            return rows, decider.decide(self.log.partition, rows, finish)
        finally:
            try:
                finish()
            except (ConflictError, StoreError):
                decider.assign(self.log.partition)  # nothing was accepted
                raise

    def _append(
        self, decoded: pa.Table, now_us: int, on_new: Callable[[pa.Table], None] = lambda _rows: None
    ) -> tuple[pa.Table, Segment | None]:
        # At the end as it was when the partition was assigned: the position to read from was derived from it.
        # The end of the last batch is recorded in the transaction of the append: one commit less for each batch.
        end = self.unrecorded_end
        return self.ids.accept(self.log, decoded, at=self._end, now_us=now_us, end=end, on_new=on_new)

    def _number(self, n: int) -> pa.Array:
        return pa.array(np.arange(self._end, self._end + n, dtype=np.int64))

    def _note_accepted(
        self, rows: pa.Table, span: Segment | None, now_us: int, counts: SourceCounts
    ) -> pa.Table | None:
        unsaved = RowCounts(duplicates=len(self._positions) - rows.num_rows)
        if span is not None:
            self.first_unended = None if self.unrecorded_end else self.first_unended
            unsaved.add_refused(rows[REJECT], self.log.partition, span.first)
            rows = rows.append_column(SEQ, self._number(rows.num_rows))
            self._end = span.last + 1
            counts.batches += 1
        unsaved.accepted = rows[REJECT].null_count
        unsaved.late = self._count_late(rows, counts)
        counts.read += len(self._positions)
        counts.add(unsaved, now_us)
        # Only after the append: if that fails, the same messages are accepted again.
        self.next_position = self._positions[-1] + 1
        self._payloads, self._positions = [], []
        return rows if rows.num_rows else None

    def apply(
        self, writer: StateWriter, rows: pa.Table, counts: SourceCounts, selected: Selected | None = None
    ) -> None:
        """Apply rows that were just accepted; ``selected`` as for ``StateWriter.apply``.

        Raises:
            StoreError: the store failed or is unavailable; the partition is behind then.
        """
        # Until the store has replied, it is unknown which of the rows were applied.
        self.behind = True
        counts.states += writer.apply(self.log, rows, 0 if self._positions else self.drained_us, selected)
        if self.first_unended is None:
            self.first_unended = rows[SEQ][0].as_py()
        self.behind, self.applied, self.end_us = False, rows[SEQ][-1].as_py(), writer.end_us()

    def record_end(self, writer: StateWriter) -> None:
        """Record the end of applied positions, if all needed views have them.

        Raises:
            StoreError: the record cannot be written.
        """
        if self.first_unended is not None and self.end_us is None and not self.behind:
            self.end_us = writer.end_us()
        if (end := self.unrecorded_end) is not None:
            self.log.record_end(*end)
            self.first_unended = None

    def catch_up(self, writer: StateWriter, counts: SourceCounts) -> None:
        """Apply all rows of the log that the states lack.

        Raises:
            StoreError: the store failed or is unavailable; the partition is behind then.
            ConflictError: the states include more than the log, so nothing may be appended to it.
        """
        self.record_end(writer)  # of the last batch, which ended before
        self.applied = catch_up(self.log, writer, counts)
        # From 0: where an end is recorded already, the first record counts.
        self.behind, self.first_unended, self.end_us = False, 0 if self.applied >= 0 else None, None
        self.record_end(writer)

    def _count_late(self, rows: pa.Table, counts: SourceCounts) -> int:
        """Return the number of late events; note the greatest event time."""
        ts = rows.filter(rows[REJECT].is_null())[EVENT].to_numpy()
        if not len(ts):
            return 0
        # An event is late if an earlier one is newer by more than the slack of a hop.
        running_max = np.maximum.accumulate(ts)
        if self._watermark is not None:
            running_max = np.maximum(running_max, self._watermark)
        self._watermark = int(running_max[-1])
        counts.watermark_us = max(self._watermark, counts.watermark_us or self._watermark)
        return int((ts < running_max - PENDING_US).sum())

    def _last_position(self) -> int | None:
        last = self._end - 1
        if last < 0:
            return None
        rows = pa.concat_tables(self.log.read(last, last, [SOURCE_POS]))
        return int(rows[SOURCE_POS][0].as_py()) + 1


def catch_up(log: PartitionLog, writer: StateWriter, counts: SourceCounts) -> int:
    """Apply all rows of a log that the states lack; return the last position.

    Raises:
        StoreError: the store failed or is unavailable.
        ConflictError: the states include more than the log.
    """
    end = log.next_seq() - 1
    read, changed = writer.catch_up(log)
    counts.rereads += read
    counts.states += changed
    return end


@dataclass(eq=False)
class IdlePartitions:
    """Applies partitions that other workers own or nobody owns, if they are behind.

    So their events are restored when the store loses states. Imported history and partitions of a recreated stream have
    no owner, and an owner may have died. Any worker may apply their logs, because each position is applied only once.

    Args:
        writer: of the states.
        state: of the project.
        source: name of the event source.
    """

    writer: StateWriter
    state: ProjectState
    source: str

    def __post_init__(self) -> None:
        """Begin without logs and positions."""
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
        names = {*self.writer.partitions(), *log_partitions(self.state, self.source)} - set(own)
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
        end = catch_up(self._log(name), self.writer, counts)
        if end >= 0:
            # Earlier records stay valid: the first record of a position counts.
            ended_us = self.writer.end_us()
            if ended_us is not None:
                self._log(name).record_end(0, end, ended_us)

    def _find_behind(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the applied position of each partition that is behind."""
        return {
            name: position
            for name, position in self.writer.read_positions(names).items()
            if position is None or position < self._log(name).next_seq() - 1 or not self._is_ended(name)
        }

    def _is_ended(self, name: str) -> bool:
        """Return whether the log has the end of all positions; a backfill, for example, does not record them."""
        end = self._log(name).next_seq()
        if self._ends.get(name) != end and self._log(name).has_all_ends():
            self._ends[name] = end
        return self._ends.get(name) == end

    def _log(self, name: str) -> PartitionLog:
        return self._logs.setdefault(name, PartitionLog(self.state, name))
