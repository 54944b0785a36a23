"""A stream worker: reads a source's events, appends them to the accepted log, and applies them to online states.

All rows in the log are applied, even if the worker, the store or the broker fail in between: the log is the source of
truth, states record the positions that they include, and markers say where to continue (SEMANTICS 4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import structlog

from skewless.contract.clock import Clock
from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.event_log import EventLog
from skewless.infra.online.port import Marker
from skewless.infra.streams.decode import Decoder
from skewless.infra.streams.event_ids import EventIds
from skewless.infra.streams.idle_partitions import IdlePartitions
from skewless.infra.streams.partition_worker import PartitionWorker
from skewless.infra.streams.port import EventStream, Partition, RebalanceListener
from skewless.infra.streams.source_counts import SourceCounts
from skewless.infra.streams.state_writer import StateWriter

_LINGER_S = 0.1
_RETRY_S = 1.0
_LOOK_S = 1.0
_BEAT_S = 0.5
_log = structlog.get_logger()

OpenStream = Callable[[RebalanceListener], EventStream]


class Assignment(NamedTuple):
    """The source that a worker reads, and the windowed views that it updates."""

    source: EventSource
    views: tuple[WindowView, ...]


def log_partition(source: str, partition: Partition) -> str:
    """Return the name of the log partition of a stream's partition (SEMANTICS 1.4).

    >>> log_partition("arrivals", Partition(name="0", epoch="ab12"))
    'events/arrivals/ab12/0'
    """
    return f"events/{source}/{partition.epoch}/{partition.name}"


class Worker:
    """Processes the partitions of one source that the stream assigns to it; used from one thread.

    Args:
        source: of the events.
        views: the windowed views of the source.
        open_stream: joins the worker group; called again after a partition was lost to another worker.
        writer: applies rows to states.
        log_root: folder of all logs.
        clock: of the project.
        max_rows: maximum number of messages in a batch.
        max_bytes: maximum size of a message.
    """

    def __init__(
        self,
        *,
        source: EventSource,
        views: Sequence[WindowView],
        open_stream: OpenStream,
        writer: StateWriter,
        log_root: Path,
        clock: Clock,
        max_rows: int = 20_000,
        max_bytes: int = 1_048_576,
    ) -> None:
        self.tally = SourceCounts(source=source.name)
        self.stepped_at = time.monotonic()
        self._source = source
        self._views = views
        self._open_stream = open_stream
        self._stream: EventStream | None = None
        self._next: Assignment | None = None
        self._writer = writer
        self._log_root = log_root
        self._clock = clock
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._decoder = Decoder(source, views, max_bytes)
        self._ids = EventIds(source, log_root, source.dedupe_us)
        self._lanes: dict[Partition, PartitionWorker] = {}
        self._written_at = -_LINGER_S
        self._retry_at = 0.0
        self._look_at = 0.0
        self._beat_at = 0.0
        self._refused: str | None = None
        self._resting = IdlePartitions(writer, log_root, source.name)

    @property
    def assignment(self) -> Assignment:
        """The current assignment, or the one from the next step on."""
        return self._next or Assignment(self._source, tuple(self._views))

    def take_up(self, assignment: Assignment, open_stream: OpenStream) -> None:
        """Use another definition of the source or other views from the next step on; any thread may call it.

        Args:
            assignment: the new source and views.
            open_stream: joins the source's stream, if it is another stream than before.
        """
        if not self._source.same_stream(assignment.source):
            self._open_stream = open_stream
        self._next = assignment

    def run(self, go_on: Callable[[], bool]) -> None:
        """Work while ``go_on`` returns true, then release the partitions. A kill loses no accepted event.

        Raises:
            StoreError: the broker reports a permanent error.
        """
        try:
            while go_on():
                self.step()
        finally:
            self.close()

    def step(self) -> None:
        """Read available messages, at most one batch, append them to the log and apply them.

        Raises:
            StoreError: the broker reports a permanent error.
        """
        try:
            self.stepped_at = time.monotonic()
            self._change()
            self._step(self._joined())
        except ConflictError as error:
            # Another worker owns the partition: join the group again, and continue from the end of the log.
            if self.tally.trouble != str(error):
                _log.warning("partition_lost", source=self._source.name, error=str(error))
            self.tally.trouble = str(error)
            self.close()
            time.sleep(_RETRY_S)

    def close(self) -> None:
        """Release the partitions; the next step joins again. Partitions that cannot be released expire."""
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.close()
        except StoreError as error:
            _log.warning("not_given_back", source=self._source.name, error=str(error))
        finally:
            self._lanes.clear()
            self._refused = None

    def assigned(self, partition: Partition) -> int | None:
        """Accept a partition; return the position after the log's last row."""
        log = EventLog(self._log_root, log_partition(self._source.name, partition))
        lane = PartitionWorker(partition=partition, log=log, decoder=self._decoder, ids=self._ids)
        self._lanes[partition] = lane
        self._retry_at = 0.0
        return lane.next_position

    def revoked(self, partition: Partition) -> None:
        """Give up a partition; the next owner reads the waiting messages again."""
        self._lanes.pop(partition, None)

    def _change(self) -> None:
        """Switch to a new assignment, if there is one."""
        wanted, self._next = self._next, None
        if wanted is None:
            return
        before, after = self._source, wanted.source
        if not before.same_stream(after):
            self.close()
        self._ids.take_up(after)
        self._source, self._views = wanted
        self._decoder = Decoder(wanted.source, wanted.views, self._max_bytes)
        self._writer.take_up(wanted.views)
        for lane in self._lanes.values():
            lane.take_up(self._decoder)
        self._retry_at = self._look_at = 0.0

    def _joined(self) -> EventStream:
        if self._stream is None:
            self._stream = self._open_stream(self)
        return self._stream

    def _step(self, stream: EventStream) -> None:
        now = time.monotonic()
        waiting = sum(lane.waiting for lane in self._lanes.values())
        due = self._written_at + _LINGER_S
        if waiting < self._max_rows:
            timeout = max(0.0, due - now) if waiting else _LINGER_S
            began_us = self._clock.now_us()
            for messages in stream.poll(self._max_rows - waiting, timeout):
                if messages.partition in self._lanes:
                    self._lanes[messages.partition].take(messages)
            for partition, late_s in stream.drained().items():
                if partition in self._lanes:
                    self._lanes[partition].drained_us = began_us - int(late_s * 1e6)
        self._mend()
        waiting = sum(lane.waiting for lane in self._lanes.values())
        # A file has the messages of at least 100 ms; after a quiet time it is written at once.
        if waiting and (waiting >= self._max_rows or time.monotonic() >= due):
            self._batch(stream)
        self._beat(stream)
        self._watch(stream)

    def _batch(self, stream: EventStream) -> None:
        done: dict[Partition, int] = {}
        refused: StoreError | None = None
        for partition, lane in list(self._lanes.items()):
            if not lane.waiting:
                continue
            try:
                rows = lane.accept(self._clock.now_us(), self.tally)
            except StoreError as error:
                refused = error  # the logs of other partitions may be on another disk
                continue
            if rows is not None:
                self._apply(lane, rows)
            if lane.next_position is not None:
                done[partition] = lane.next_position
        self._written_at = time.monotonic()
        stream.commit(done)
        self._refused = None if refused is None else str(refused)
        if refused is not None:
            self._trouble(refused)
            time.sleep(_RETRY_S)

    def _apply(self, lane: PartitionWorker, rows: pa.Table) -> None:
        if lane.behind:
            return  # earlier rows must be applied first
        try:
            lane.apply(self._writer, rows, self.tally)
        except StoreError as error:
            self._trouble(error)

    def _mend(self) -> None:
        """Catch up partitions that are behind, and record ends."""
        if time.monotonic() < self._retry_at:
            return
        try:
            self._look()
            for lane in self._lanes.values():
                if lane.behind:
                    lane.catch_up(self._writer, self.tally)
                else:
                    lane.note_end(self._writer)
        except StoreError as error:
            self._trouble(error)
            return
        self.tally.trouble = self._refused

    def _look(self) -> None:
        """Check once a second whether the store has lost applied rows, also if no events arrive."""
        if time.monotonic() < self._look_at:
            return
        own = {lane.log.partition: lane for lane in self._lanes.values()}
        for name, position in self._writer.standing(list(own)).items():
            own[name].behind |= position is None or position < own[name].applied
        self._resting.look(own, self.tally, self._clock.now_us)
        self._look_at = time.monotonic() + _LOOK_S

    def _beat(self, stream: EventStream) -> None:
        """Advance watermarks about twice a second, also if no events arrive."""
        if time.monotonic() < max(self._beat_at, self._retry_at):
            return
        marks = {
            lane.log.partition: Marker(lane.applied, lane.watermark_us)
            for lane in self._lanes.values()
            if lane.watermark_us
        }
        names = stream.names()
        if names is not None:
            live = {lane.log.partition for lane in self._lanes.values()}
            own = {lane.partition.name for lane in self._lanes.values()}
            marks |= self._resting.watermarks(live, set(names) - own)
        try:
            self._writer.advance(marks)
        except StoreError as error:
            self._trouble(error)
        self._beat_at = time.monotonic() + _BEAT_S

    def _trouble(self, error: StoreError) -> None:
        if self.tally.trouble != str(error):
            _log.warning("worker_waits", source=self._source.name, error=str(error))
        self.tally.trouble = str(error)
        self._retry_at = time.monotonic() + _RETRY_S

    def _watch(self, stream: EventStream) -> None:
        self.tally.partitions = len(self._lanes)
        self.tally.lag = stream.lag()
        self.tally.trouble = self.tally.trouble or stream.trouble
