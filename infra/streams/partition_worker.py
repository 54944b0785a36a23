"""One partition of a source and its worker's progress: waiting messages, the log's end, the applied position."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from skewless.infra.log.event_rows import SOURCE_POS
from skewless.infra.log.log_columns import EVENT, REJECT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.streams.decode import Decoder
from skewless.infra.streams.event_ids import EventIds
from skewless.infra.streams.port import Messages, Partition
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.state_writer import PENDING_US, StateWriter


class PartitionWorker:
    """Processes one partition step by step (SEMANTICS 4.1).

    Attributes:
        behind: the log may have rows that the states lack.
        applied: the last applied position.
        first_unended: the first applied position whose end is not recorded yet; None: all are recorded.
        drained_us: time up to which all messages that had arrived were read, microseconds; 0: unknown.

    Args:
        partition: of the stream.
        log: of the partition; its end is read once, here.
        decoder: of the source.
        ids: of the source, shared by its partitions.
    """

    def __init__(self, *, partition: Partition, log: PartitionLog, decoder: Decoder, ids: EventIds) -> None:
        self.partition = partition
        self.log = log
        self.behind = True
        self.applied = -1
        self.first_unended: int | None = None
        self.drained_us = 0
        self._decoder = decoder
        self._ids = ids
        self._payloads: list[bytes | None] = []
        self._positions: list[int] = []
        self._watermark: int | None = None
        self._end = log.next_seq()
        self._next = self._last_position()

    @property
    def next_position(self) -> int | None:
        """The next position to read in the stream; None: from its beginning."""
        return self._next

    @property
    def waiting(self) -> int:
        """Number of messages that wait for the next batch."""
        return len(self._positions)

    @property
    def watermark_us(self) -> int:
        """Time up to which all messages that had arrived have been applied, microseconds; 0: unknown."""
        # A waiting message has arrived, but is not applied.
        return 0 if self.behind or self._positions else self.drained_us

    def set_decoder(self, decoder: Decoder) -> None:
        """Use another definition of the source from now on; new views may lack events."""
        self._decoder = decoder
        # Catching up gives new views the rows that they lack, and their markers.
        self.behind = True

    def add_messages(self, messages: Messages) -> None:
        """Queue messages for the next batch."""
        self._payloads += messages.payloads
        self._positions += messages.positions

    def accept(self, now_us: int, counts: SourceCounts) -> pa.Table | None:
        """Validate waiting messages and append them to the log; return the numbered rows, None if there are none.

        Raises:
            ConflictError: another worker wrote to the partition and owns it now.
            StoreError: the log cannot be written; nothing was accepted, so the call can be repeated.
        """
        if not self._positions:
            return None
        decoded = self._decoder.decode(self._payloads, self._positions, now_us)
        # At the end as it was when the partition was assigned: the position to read from was derived from it.
        accepted = self._ids.accept(self.log, decoded.rows, at=self._end, now_us=now_us)
        rows, span = accepted.rows, accepted.span
        if span is not None:
            self._end = span.last + 1
            rows = rows.append_column(SEQ, pa.array(np.arange(span.first, span.last + 1, dtype=np.int64)))
            counts.batches += 1
        counts.read += len(self._positions)
        counts.duplicates += len(self._positions) - rows.num_rows
        counts.rejected += decoded.rejected
        counts.accepted += rows.num_rows - decoded.rejected
        # Only after the append: if that fails, the same messages are accepted again.
        self._next = self._positions[-1] + 1
        self._payloads, self._positions = [], []
        self._count_events(rows, counts)
        return rows if rows.num_rows else None

    def apply(self, writer: StateWriter, rows: pa.Table, counts: SourceCounts) -> None:
        """Apply rows that were just accepted.

        Raises:
            StoreError: the store failed or is unavailable; the partition is behind then.
        """
        # Until the store has replied, it is unknown which of the rows were applied.
        self.behind = True
        counts.states += writer.apply(self.log, rows, 0 if self._positions else self.drained_us)
        if self.first_unended is None:
            self.first_unended = rows[SEQ][0].as_py()
        self.behind, self.applied = False, rows[SEQ][-1].as_py()
        self.record_end(writer)

    def record_end(self, writer: StateWriter) -> None:
        """Record the end of applied positions, if all needed views have them.

        Raises:
            StoreError: the record cannot be written.
        """
        if self.first_unended is not None and writer.record_end(self.log, self.first_unended, self.applied):
            self.first_unended = None

    def catch_up(self, writer: StateWriter, counts: SourceCounts) -> None:
        """Apply all rows of the log that the states lack.

        Raises:
            StoreError: the store failed or is unavailable; the partition is behind then.
            ConflictError: the states include more than the log, so nothing may be appended to it.
        """
        self.applied = catch_up(self.log, writer, counts)
        # From 0: where an end is recorded already, the first record counts.
        self.behind, self.first_unended = False, 0 if self.applied >= 0 else None
        self.record_end(writer)

    def _count_events(self, rows: pa.Table, counts: SourceCounts) -> None:
        ts = rows.filter(rows[REJECT].is_null())[EVENT].to_numpy()
        if not len(ts):
            return
        # An event is late if an earlier one is newer by more than the slack of a hop.
        running_max = np.maximum.accumulate(ts)
        if self._watermark is not None:
            running_max = np.maximum(running_max, self._watermark)
        counts.late += int((ts < running_max - PENDING_US).sum())
        self._watermark = int(running_max[-1])
        counts.watermark_us = max(self._watermark, counts.watermark_us or self._watermark)

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
