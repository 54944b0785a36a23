"""Decides the events of one source: reads features as of just before each event, scores, and logs (SEMANTICS 9)."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from skewless.contract.clock import Clock
from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import ConflictError, SkewlessError
from skewless.contract.window_events import ViewEvents
from skewless.infra.ingest.streams.decider import DecisionCounts
from skewless.infra.log.catalog import Segment
from skewless.infra.log.log_columns import SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.rollout.counts import write_counts
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.records.predictions.record import DecidedEvents
from skewless_decisions.conditions import Condition
from skewless_decisions.decision_log import DeadEvent, DecidedPosition, DecidedRange, DecisionLog
from skewless_decisions.events import AcceptedEvents, FindTimes, find_times
from skewless_decisions.pending_events import PendingEvents
from skewless_decisions.scoring import DecidedBatch, EventScorer

_CATCH_UP_ROWS = 1_024
_RECORD_S = 5.0  # between two writes of positions behind skipped events
_log = EventLogger()
OnDecided = Callable[[Segment, pa.Table], None]


@dataclass(kw_only=True, eq=False)
class SourceDecider:
    """Decides the events of one source for its decision streams; see ``EventDecider``.

    Args:
        streams: the decision streams of the source.
        source: name of the event source.
        conditions: of the streams.
        log: of the decisions.
        scorer: reads features and scores.
        clock: of the project.
        on_decided: called with each segment of decisions and its rows, after it is durable.
        find_times: returns the times for which events are decided.
        has_room: whether the sinks of a stream can take more decisions; if not, its events wait.
    """

    streams: Sequence[DecisionStream]
    source: str
    conditions: Sequence[Condition]
    log: DecisionLog
    scorer: EventScorer
    clock: Clock
    find_times: FindTimes = find_times
    on_decided: OnDecided = lambda _segment, _rows: None
    has_room: Callable[[str], bool] = lambda _stream: True

    def __post_init__(self) -> None:
        """Begin without positions."""
        self.counts = [DecisionCounts(stream=stream.name, source=self.source) for stream in self.streams]
        self._positions: dict[tuple[str, str], DecidedPosition] = {}
        self._recorded: dict[tuple[str, str], DecidedPosition] = {}
        self._ends: dict[str, int] = {}
        self._record_at = 0.0
        self._has_counts = False
        # The random part: a new process with the same pid must not overwrite the counts of an ended one.
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    def assign(self, partition: str) -> None:
        """Read the positions of a partition again; see ``EventDecider``."""
        self._ends.pop(partition, None)
        for stream in self.streams:
            self._forget_position(stream.name, partition)

    def revoke(self, partition: str) -> None:
        """Forget a partition; see ``EventDecider``. The next owner skips again what was skipped and not recorded."""
        self.assign(partition)
        self._count_lag()

    def extend(self, partition: str, end: int) -> None:
        """Let ``catch_up`` decide the rows of a partition before a position."""
        self._ends[partition] = max(end, self._ends.get(partition, 0))

    def decide(
        self, partition: str, rows: pa.Table, ensure_logged: Callable[[], None] = lambda: None
    ) -> Mapping[str, ViewEvents]:
        """Decide events that are being appended; see ``EventDecider``."""
        self._ends[partition] = rows[SEQ][-1].as_py() + 1
        return self._decide(PendingEvents(partition, rows, ensure_logged), rows).selected

    def catch_up(self, log: PartitionLog) -> None:
        """Decide waiting events of a partition; see ``EventDecider``."""
        partition = log.partition
        if partition not in self._ends:
            self._ends[partition] = log.next_seq()
        try:
            positions = [self._read_position(stream.name, partition).next for stream in self.streams]
            first, end = min(positions), self._ends[partition]
            if first < end:
                with closing(log.read(first, min(end, first + _CATCH_UP_ROWS) - 1)) as tables:  # type: ignore[type-var]
                    rows = pa.concat_tables(tables)
                self._decide(PendingEvents(partition, rows), rows)
            self._count_lag()
            if time.monotonic() >= self._record_at:
                self._record_at = time.monotonic() + _RECORD_S
                self._record_positions()
                self._write_rollout_counts()
        except ConflictError:
            raise
        except SkewlessError as error:
            self.note_trouble(str(error))

    def close(self) -> None:
        """Record positions behind skipped events, and close the connections."""
        try:
            self._record_positions()
            self._write_rollout_counts()
        except SkewlessError as error:  # the next worker skips these events again
            _log.warning("decided_positions_not_recorded", source=self.source, error=str(error))
        self.scorer.close()

    def _decide(self, pending: PendingEvents, rows: pa.Table) -> PendingEvents:
        """Decide consecutive rows for each stream that has decided all events before them."""
        events, partition = AcceptedEvents.of(rows), pending.partition
        last = pending.first + rows.num_rows - 1
        batches: list[DecidedBatch] = []
        ranges: list[DecidedRange] = []
        for stream, condition, counts in zip(self.streams, self.conditions, self.counts, strict=True):
            try:
                position = self._read_position(stream.name, partition)
                if not pending.first <= position.next <= last:
                    continue
                if not self.has_room(stream.name):
                    self._note(counts, "a sink has no room: too many decisions wait for it")
                    continue
                begin = self._with_newest(pending, position)
                batch, after, dead = self._decide_stream(stream, condition, events, pending, begin, last)
            except ConflictError:
                raise
            except SkewlessError as error:
                self._note(counts, str(error))
                continue
            self._note(counts, None)
            if batch is not None:
                batches.append(batch)
            recorded = self._recorded[stream.name, partition]
            ranges.append(
                DecidedRange(stream=stream.name, partition=partition, before=recorded, after=after, dead=dead)
            )
        self._append(pending, batches, ranges)
        self._count_lag()
        return pending

    def _decide_stream(
        self,
        stream: DecisionStream,
        condition: Condition,
        events: AcceptedEvents,
        pending: PendingEvents,
        begin: DecidedPosition,
        last: int,
    ) -> tuple[DecidedBatch | None, DecidedPosition, Sequence[DeadEvent]]:
        """Return the decisions of one stream, its new position, and its dead letters."""
        events = events.select(events.seq >= begin.next)
        t, late = self.find_times(events.ts, events.ingest, begin.newest_us)
        name, partition = stream.name, pending.partition
        times = DecidedEvents(stream=name, partition=partition, seq=events.seq, event_ts=events.ts, t=t, late=late)
        matches, failures = condition.find_matches(events, times, pending)
        if stream.late == "skip":
            matches &= ~times.late
        chosen = np.flatnonzero(matches)
        next_seq = last + 1
        batch = None
        dead: Sequence[DeadEvent] = failures
        if len(chosen):
            scored = self.scorer.score(stream, events.select(chosen), times.take(chosen), pending)
            batch, dead = scored.batch, [*failures, *scored.dead]
            if scored.undecided is not None:  # not all can be read yet: the others wait
                next_seq = scored.undecided
                is_done = events.seq < next_seq
                times, matches = times.take(is_done), matches[is_done]
                dead = [event for event in dead if event.seq < next_seq]
        newest = [each for each in (begin.newest_us, *times.event_ts.tolist()) if each is not None]
        n = 0 if batch is None else batch.n
        after = replace(
            begin,
            next=next_seq,
            newest_us=max(newest, default=None),
            decided=begin.decided + n,
            skipped=begin.skipped + int((~matches).sum()) - len(failures),
            late=begin.late + (0 if batch is None else batch.n_late),
            dead=begin.dead + len(dead),
        )
        return batch, after, dead

    def _append(self, pending: PendingEvents, batches: Sequence[DecidedBatch], ranges: Sequence[DecidedRange]) -> None:
        """Log decisions and positions in one transaction; positions behind skipped events alone wait."""
        partition = pending.partition
        if not ranges:
            return
        if not batches and not any(item.dead for item in ranges):
            pending.ensure_logged()
            self._count(ranges)
            for item in ranges:
                self._positions[item.stream, partition] = item.after
            return
        rows = pa.concat_tables([batch.rows for batch in batches]) if batches else None
        try:
            segment = self.log.append(rows, ranges, self.clock.now_us(), pending.ensure_logged)
        except SkewlessError as error:
            # The append may have reached the log: what counts is read again.
            for item in ranges:
                self._forget_position(item.stream, partition)
            if isinstance(error, ConflictError):
                raise
            self.note_trouble(str(error))
            return
        self._count(ranges)
        for item in ranges:
            self._positions[item.stream, partition] = self._recorded[item.stream, partition] = item.after
        for batch in batches:
            batch.count()
        if segment is not None and rows is not None:
            self.on_decided(segment, rows)

    def _record_positions(self) -> None:
        ranges = [
            DecidedRange(stream=stream, partition=partition, before=self._recorded[stream, partition], after=position)
            for (stream, partition), position in self._positions.items()
            if self._recorded[stream, partition] != position
        ]
        if ranges:
            try:
                self.log.append(None, ranges, self.clock.now_us())
            except ConflictError:
                for item in ranges:
                    self._forget_position(item.stream, item.partition)
                raise
            self._recorded |= {(item.stream, item.partition): item.after for item in ranges}

    def _write_rollout_counts(self) -> None:
        """Write the counts of rollouts, whose guardrails compare the decisions of versions, too."""
        counts = self.scorer.models.read_counts(self.clock.now_us())
        if counts or self._has_counts:
            write_counts(self.log.state, self._process, counts)
        self._has_counts = bool(counts)

    def _read_position(self, stream: str, partition: str) -> DecidedPosition:
        key = stream, partition
        if key not in self._positions:
            self._positions[key] = self._recorded[key] = self.log.read(stream, partition)
        return self._positions[key]

    def _forget_position(self, stream: str, partition: str) -> None:
        for known in (self._positions, self._recorded):
            known.pop((stream, partition), None)

    def _with_newest(self, pending: PendingEvents, position: DecidedPosition) -> DecidedPosition:
        """Return a position with the latest event time before it, which a new stream reads from the log."""
        if position.newest_us is not None or not position.next or self.find_times is not find_times:
            return position
        pending.ensure_logged()
        return replace(position, newest_us=self.scorer.reads.find_newest(pending.partition, position.next))

    def _count(self, ranges: Sequence[DecidedRange]) -> None:
        by_stream = {counts.stream: counts for counts in self.counts}
        for item in ranges:
            counts, old = by_stream[item.stream], self._positions.get((item.stream, item.partition), item.before)
            for name in ("decided", "skipped", "late", "dead"):
                setattr(counts, name, getattr(counts, name) + getattr(item.after, name) - getattr(old, name))
            counts.recomputed = self.scorer.reads.windows.recomputed

    def _count_lag(self) -> None:
        for counts in self.counts:
            positions = {part: self._positions.get((counts.stream, part)) for part in self._ends}
            known = {part: position.next for part, position in positions.items() if position is not None}
            is_known = len(known) == len(positions)
            counts.lag = sum(max(0, self._ends[part] - at) for part, at in known.items()) if is_known else None

    def note_trouble(self, trouble: str) -> None:
        """Note why no event of any stream is decided now."""
        for counts in self.counts:
            self._note(counts, trouble)

    def _note(self, counts: DecisionCounts, trouble: str | None) -> None:
        if trouble is not None and counts.trouble != trouble:
            _log.warning("events_not_decided", stream=counts.stream, error=trouble)
        counts.trouble = trouble
