"""A stream worker: reads a source's events, appends them to the accepted log, and applies them to online states.

All rows in the log are applied, even if the worker, the store or the broker fail in between: the log is the source of
truth, states record the positions that they include, and markers say where to continue (SEMANTICS 4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.ingest.streams.decider import EventDecider
from skewless.infra.ingest.streams.event_ids import EventIds
from skewless.infra.ingest.streams.partition_worker import IdlePartitions, PartitionWorker
from skewless.infra.ingest.streams.port import EventStream, OpenStream, Partition, StreamError
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.state_writer import Selected, StateWriter
from skewless.infra.ingest.streams.streams import Assignment, Streams
from skewless.infra.log.daily_counts import DailyCounts
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.stream_losses import StreamLoss, StreamLosses
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.port import Marker

_LINGER_S = 0.1  # the longest pause between two batches
_PAUSE = 2  # times the CPU time of a small batch: so fixed costs take a third of the thread's time at most
_GROWTH = 1.1  # at most, of the assumed cost from batch to batch: a single large one counts little
_RETRY_S = 1.0
_CHECK_S = 1.0
_ADVANCE_S = 0.5
_SAVE_S = 5.0  # between two writes of the counts by day
_MEASUREMENTS = 3
_MOST_DECIDED = 1_024  # events that are decided together, before they are applied
_log = EventLogger()


@dataclass(kw_only=True, eq=False)
class Worker:
    """Processes the partitions of one source that the stream assigns to it; used from one thread.

    Args:
        streams: of the project.
        source: of the events.
        writer: applies rows to states.
        open_stream: joins the worker group; called again after a partition was lost to another worker.
        decider: decides the accepted events; None: the source has no decision stream.
    """

    streams: Streams
    source: EventSource
    writer: StateWriter
    open_stream: OpenStream
    decider: EventDecider | None = None

    def __post_init__(self) -> None:
        """Begin without partitions."""
        state, settings = self.streams.state, self.streams.settings
        self.views: Sequence[WindowView] = self.streams.views(self.source.name)
        self.counts = SourceCounts(source=self.source.name)
        self.stepped_at = time.monotonic()
        self._stream: EventStream | None = None
        self._next_assignment: Assignment | None = None
        self._max_rows = settings.stream_batch_rows
        self._decoder = self.streams.decoder(self.source, self.views)
        self._ids = EventIds(self.source, state, self.source.dedupe_us)
        self._partition_workers: dict[Partition, PartitionWorker] = {}
        self._written_at = -_LINGER_S
        self._batch_s = _LINGER_S  # CPU time of a small batch, seconds
        self._uncommitted: dict[Partition, int] = {}
        self._commit_at = self._retry_at = self._check_at = 0.0
        self._advance_at = self._save_at = self._decide_at = self._clock_at = 0.0
        self._limit_us, self._skew_us = int(settings.skew_limit_ms * 1_000), 0
        self._next_decider: list[EventDecider | None] = []
        self._log_error: str | None = None
        self._log_pool = ThreadPoolExecutor(1, thread_name_prefix="log")  # starts its thread when it is used
        self._idle_partitions = IdlePartitions(self.writer, state, self.source.name)

    @property
    def assignment(self) -> Assignment:
        """The current assignment, or the one from the next step on."""
        return self._next_assignment or Assignment(self.source, tuple(self.views))

    def reassign(self, assignment: Assignment, open_stream: OpenStream) -> None:
        """Use another definition of the source or other views from the next step on; any thread may call it.

        Args:
            assignment: the new source and views.
            open_stream: joins the source's stream, if it is another stream than before.
        """
        if not self.source.same_stream(assignment.source):
            self.open_stream = open_stream
        self._next_assignment = assignment

    def set_decider(self, decider: EventDecider | None) -> None:
        """Use another decider from the next step on; any thread may call it. The previous one is closed."""
        self._next_decider.append(decider)

    def run(self, is_running: Callable[[], bool]) -> None:
        """Work while ``is_running`` returns true, then release the partitions. A kill loses no accepted event.

        Raises:
            StreamError: the broker reports a permanent error.
        """
        try:
            while is_running():
                self.step()
        finally:
            try:
                self._switch_decider()
                if self.decider is not None:
                    self.decider.close()  # it records its positions while the partitions are its own
            finally:
                self.close()
                self._log_pool.shutdown()

    def step(self) -> None:
        """Read available messages, at most one batch, append them to the log and apply them.

        While the log, the database or a store fails, the worker waits and joins again: nothing is lost meanwhile.

        Raises:
            StreamError: the broker reports a permanent error.
        """
        try:
            self.stepped_at = time.monotonic()
            self._switch_assignment()
            self._switch_decider()
            if not self._is_clock_right():
                self._give_up_partitions()
                return
            if self._stream is None:
                self._stream = self.open_stream(self)
            self._step(self._stream)
        except ConflictError as error:
            # Another worker owns the partition: join the group again, and continue from the end of the log.
            if self.counts.trouble != str(error):
                _log.warning("partition_lost", source=self.source.name, error=str(error))
            self.counts.trouble = str(error)
            # The log may have other rows at their positions: nothing more is recorded.
            self._forget_partitions()
            self._uncommitted.clear()
            self.close()
            time.sleep(_RETRY_S)
        except StreamError:
            raise
        except StoreError as error:
            # For example while it took a partition over: it has not taken it, so the next owner, perhaps this worker,
            # begins again at the end of the log.
            self._note_trouble(error)
            self.close()
            self.counts.partitions = 0
            time.sleep(_RETRY_S)

    def close(self) -> None:
        """Release the partitions; the next step joins again. Partitions that cannot be released expire."""
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                with suppress(StoreError):
                    stream.commit(self._uncommitted)
                stream.close()
        except StoreError as error:
            _log.warning("partitions_not_released", source=self.source.name, error=str(error))
        finally:
            # Even if the release failed: waiting messages are not in the log, so the next owner reads them again.
            self._forget_partitions()
            self._uncommitted, self._log_error = {}, None
            self._save_counts()

    def on_assigned(self, partition: Partition) -> int | None:
        """Accept a partition; return the position after the log's last row."""
        log = PartitionLog(self.streams.state, partition.log_name(self.source.name))
        partition_worker = PartitionWorker(partition=partition, log=log, decoder=self._decoder, ids=self._ids)
        self._partition_workers[partition] = partition_worker
        if self.decider is not None:
            self.decider.assign(log.partition)
        self._retry_at = 0.0
        # Not the position that the stream has: the log decides where to continue (SEMANTICS 4.2).
        return partition_worker.next_position

    def on_revoked(self, partition: Partition) -> None:
        """Give up a partition; the next owner reads the waiting messages again."""
        partition_worker = self._partition_workers.pop(partition, None)
        if partition_worker is not None:
            with suppress(StoreError):  # the next owner records a later time
                partition_worker.record_end(self.writer)
            if self.decider is not None:
                self.decider.revoke(partition_worker.log.partition)

    def on_stepped_back(self, partition: Partition, last: str, first: int) -> Collection[int]:
        """Log what waits, so that the log has all up to ``last``, and report that later events may be lost."""
        partition_worker = self._partition_workers[partition]
        self._accept(partition_worker)
        known = partition_worker.read_positions(first)
        loss = StreamLoss(
            source=self.source.name,
            partition=partition.name,
            after=last,
            from_us=int(last.partition("-")[0]) * 1_000,
            until_us=self.streams.clock.now_us(),
        )
        StreamLosses(self.streams.state.database).add(loss)
        _log.error("stream_stepped_back", **loss.as_dict())
        return known

    def _is_clock_right(self) -> bool:
        """Compare this machine's clock with the online store's, once a second; while that is down, nothing changes."""
        if time.monotonic() >= self._clock_at:
            with suppress(StoreError):
                # Again if it is beyond the limit: a process that was paused measures too much.
                measured = (abs(self.writer.store.clock_offset_us()) for _ in range(_MEASUREMENTS))
                self._skew_us = next((us for us in measured if us <= self._limit_us), self._limit_us + 1)
            self._clock_at = time.monotonic() + _CHECK_S
        return self._skew_us <= self._limit_us

    def _give_up_partitions(self) -> None:
        """Leave the partitions to workers whose clocks are right: validity and watermarks follow the clock."""
        self._note_trouble(
            StoreError(
                "clock of this machine",
                f"differs from that of the online store by more than {self._limit_us // 1_000} ms",
                fix="run NTP; a worker owns no partition until the clocks agree (skew_limit_ms)",
            )
        )
        self.close()
        self.counts.partitions = 0
        time.sleep(_RETRY_S)

    def _forget_partitions(self) -> None:
        for partition_worker in self._partition_workers.values():
            if self.decider is not None:
                self.decider.revoke(partition_worker.log.partition)
        self._partition_workers.clear()

    def _switch_assignment(self) -> None:
        """Switch to a new assignment, if there is one."""
        assignment, self._next_assignment = self._next_assignment, None
        if assignment is None:
            return
        old_source, new_source = self.source, assignment.source
        if not old_source.same_stream(new_source):
            self.close()
        self._ids.set_source(new_source)
        self.source, self.views = assignment
        self._decoder = self.streams.decoder(assignment.source, assignment.views)
        self.writer.set_views(assignment.views)
        for partition_worker in self._partition_workers.values():
            partition_worker.set_decoder(self._decoder)
        self._retry_at = self._check_at = 0.0

    def _switch_decider(self) -> None:
        """Switch to a new decider, if there is one."""
        while self._next_decider:
            old, self.decider = self.decider, self._next_decider.pop(0)
            self.writer.follows_events = self.decider is not None
            if old is not None:
                old.close()

    def _step(self, stream: EventStream) -> None:
        waiting = sum(partition_worker.waiting for partition_worker in self._partition_workers.values())
        # After a quiet time, events are written at once. Decisions do not wait: each costs more than its share.
        due = self._written_at + (min(_LINGER_S, _PAUSE * self._batch_s) if self.decider is None else 0.0)
        if waiting < self._max_rows:
            if waiting:
                time.sleep(max(0.0, due - time.monotonic()))
            # Taken before the poll, because messages that arrive during the poll are not covered.
            began_us = self.streams.clock.now_us()
            for messages in stream.poll(self._max_rows - waiting, 0.0 if waiting else _LINGER_S):
                if messages.partition in self._partition_workers:
                    self._partition_workers[messages.partition].add_messages(messages)
            # At once: while a store hangs, the rest of this step takes half a minute.
            self.counts.trouble = self.counts.trouble or stream.trouble
            for partition, late_s in stream.find_drained().items():
                if partition in self._partition_workers:
                    self._partition_workers[partition].drained_us = began_us - int(late_s * 1e6)
        # Before the next batch: its rows may only be applied after all earlier ones.
        self._catch_up()
        self._decide_waiting()
        waiting = sum(partition_worker.waiting for partition_worker in self._partition_workers.values())
        if waiting and (waiting >= self._max_rows or time.monotonic() >= due):
            self._write_batch()
        if self._uncommitted and time.monotonic() >= self._commit_at:
            # After the append, and not for each batch. If a commit is lost, the log still knows the position.
            stream.commit(self._uncommitted)
            self._uncommitted, self._commit_at = {}, time.monotonic() + _LINGER_S
        self._advance_watermarks(stream)
        if time.monotonic() >= self._save_at:
            self._save_counts()
        self.counts.partitions = len(self._partition_workers)
        self.counts.lag = stream.lag()
        self.counts.trouble = self.counts.trouble or stream.trouble

    def _write_batch(self) -> None:
        began_s = time.thread_time()
        log_error: StoreError | None = None
        for partition, partition_worker in list(self._partition_workers.items()):
            if not partition_worker.waiting:
                continue
            try:
                self._accept(partition_worker)
            except StoreError as error:
                log_error = error  # the logs of other partitions may be on another disk
                continue
            if partition_worker.next_position is not None:
                self._uncommitted[partition] = partition_worker.next_position
        self._written_at = time.monotonic()
        # Not the time of the clock: a slow disk or server would make events wait twice.
        self._batch_s = min(time.thread_time() - began_s, _GROWTH * self._batch_s)
        self._log_error = None if log_error is None else str(log_error)
        if log_error is not None:
            self._note_trouble(log_error)
            time.sleep(_RETRY_S)

    def _accept(self, partition_worker: PartitionWorker) -> None:
        """Log the waiting messages of a partition, decide and apply them."""
        now_us, decided = self.streams.clock.now_us(), None
        # While the log cannot be written, nothing is decided in vain.
        if self.decider is not None and not self._log_error and partition_worker.waiting <= _MOST_DECIDED:
            decided = partition_worker.decide_and_accept(self.decider, now_us, self.counts, self._log_pool)
        if decided is not None:
            self._apply_part(partition_worker, *decided)
        elif (rows := partition_worker.accept(now_us, self.counts)) is not None:
            self._apply(partition_worker, rows)

    def _apply(self, partition_worker: PartitionWorker, rows: pa.Table) -> None:
        # In parts: each event is compared with the events of its entity before it in its part.
        size = rows.num_rows if self.decider is None else _MOST_DECIDED
        for part in [rows.slice(first, size) for first in range(0, rows.num_rows, size)]:
            selected = None if self.decider is None else self.decider.decide(partition_worker.log.partition, part)
            self._apply_part(partition_worker, part, selected)

    def _apply_part(self, partition_worker: PartitionWorker, rows: pa.Table, selected: Selected | None) -> None:
        if partition_worker.behind:
            return  # earlier rows must be applied first
        try:
            partition_worker.apply(self.writer, rows, self.counts, selected)
        except StoreError as error:
            self._note_trouble(error)

    def _decide_waiting(self) -> None:
        """Decide accepted events that are not decided yet: after a start, and after a failure."""
        if self.decider is None or time.monotonic() < self._decide_at:
            return
        for partition_worker in list(self._partition_workers.values()):
            self.decider.catch_up(partition_worker.log)
        if any(counts.trouble for counts in self.decider.counts):
            self._decide_at = time.monotonic() + _RETRY_S

    def _catch_up(self) -> None:
        """Catch up partitions that are behind, and record ends."""
        if time.monotonic() < self._retry_at:
            return
        try:
            self._check_store()
            for partition_worker in self._partition_workers.values():
                if partition_worker.behind:
                    partition_worker.catch_up(self.writer, self.counts)
                elif not partition_worker.waiting or self._log_error:
                    partition_worker.record_end(self.writer)  # else the next append does it
        except StoreError as error:
            self._note_trouble(error)
            return
        self.counts.trouble = self._log_error

    def _check_store(self) -> None:
        """Check once a second whether the store has lost applied rows, also if no events arrive."""
        if time.monotonic() < self._check_at:
            return
        workers = {each.log.partition: each for each in self._partition_workers.values()}
        for name, position in self.writer.read_positions(list(workers)).items():
            workers[name].behind |= position is None or position < workers[name].applied
        self._idle_partitions.catch_up_stuck(workers, self.counts, self.streams.clock.now_us)
        self._check_at = time.monotonic() + _CHECK_S

    def _advance_watermarks(self, stream: EventStream) -> None:
        """Advance watermarks about twice a second, also if no events arrive."""
        if time.monotonic() < max(self._advance_at, self._retry_at):
            return
        own = list(self._partition_workers.values())
        markers = {each.log.partition: Marker(each.applied, each.watermark_us) for each in own if each.watermark_us}
        names = stream.partition_names()
        if names is not None:
            foreign = set(names) - {each.partition.name for each in own}
            markers |= self._idle_partitions.watermarks({each.log.partition for each in own}, foreign)
        try:
            self.writer.advance(markers)
        except StoreError as error:
            self._note_trouble(error)
        self._advance_at = time.monotonic() + _ADVANCE_S

    def _save_counts(self) -> None:
        self.counts.save(DailyCounts(self.streams.state.database))
        self._save_at = time.monotonic() + _SAVE_S

    def _note_trouble(self, error: StoreError) -> None:
        if self.counts.trouble != str(error):
            _log.warning("worker_stalled", source=self.source.name, error=str(error))
        self.counts.trouble = str(error)
        self._retry_at = time.monotonic() + _RETRY_S
