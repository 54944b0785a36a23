"""Delivers decisions to sinks: a thread for each sink, which waits for its lease, and sends from its position on.

A decision is delivered at least once, and those of one key in the order of the log: a batch is confirmed before the
next one is confirmed, and a batch that fails is sent again, with growing pauses, for as long as it takes. What the sink
refuses for good goes to its dead letters. While too many decisions wait for a sink, no event is decided.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from skewless.contract.errors import ConflictError, SkewlessError, StoreError
from skewless.contract.sinks import ParquetSink, Sink
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.daily_counts import DailyCounts, RowCounts
from skewless.infra.platform.storage.leases import LeaseRenewal, Leases, new_holder
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.platform.telemetry.redaction import redact
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless.operations.data.decision_port import SINK_COUNTS
from skewless_decisions.outbox import DecisionBatch, DecisionSink, Outbox
from skewless_decisions.sink_adapters import SinkContext, open_delivery
from skewless_decisions.sink_positions import Refusal, SinkPositions, SinkTrouble

_CONFIRM_S = 0.1  # between two confirmations; after a kill, the deliveries since then are repeated
_SKIP_S = 1.0  # the same, if no prediction is a decision
_POLL_S, _IDLE_POLL_S, _IDLE_AFTER_S = 0.02, 0.2, 5.0  # how soon decisions of other processes are found
_LEASE_S, _STOP_S = 1.0, 30.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 30.0
_COUNT_S, _SAVE_S = 0.5, 5.0
_log = EventLogger()


@dataclass(kw_only=True)
class SinkCounts:
    """Counts of one sink in one process since it began.

    Args:
        sink: name of the sink.
        is_owner: whether this process delivers; another process may.
        delivered: decisions that the sink has stored.
        refused: decisions that the sink refused for good.
        retries: deliveries that failed and are tried again.
        waiting: rows of the prediction log that the sink has not confirmed; None: unknown.
        letters: dead letters that are kept; None: unknown.
        trouble: why nothing is delivered now; None: nothing is wrong.
    """

    sink: str
    is_owner: bool = False
    delivered: int = 0
    refused: int = 0
    retries: int = 0
    waiting: int | None = None
    letters: int | None = None
    trouble: str | None = None


class SinkDelivery:
    """Delivers to one sink in its own thread.

    Args:
        context: of the project.
        sink: its declaration.
        streams: names of its decision streams.
        open_sink: opens the adapter, for an outbox.
    """

    def __init__(
        self,
        context: SinkContext,
        sink: Sink,
        streams: Sequence[str],
        open_sink: Callable[[SinkContext, Sink, Outbox], DecisionSink] | None = None,
    ) -> None:
        self.sink, self.streams = sink, tuple(streams)
        self.counts = SinkCounts(sink=sink.name)
        self._context, self._open = context, open_sink or open_delivery
        self._positions = SinkPositions(context.state.database)
        self._catalog = Catalog(context.state.database)
        self._leases = Leases(context.state.database)
        self._stop, self._wake = threading.Event(), threading.Event()
        self._outbox: Outbox | None = None
        self._counted_at = -_COUNT_S
        self._done, self._unconfirmed, self._refusals = 0, 0, list[Refusal]()
        self._waiting_since = 0.0
        self._by_day, self._saved_at = RowCounts(), 0.0
        self._trouble: SinkTrouble | None = None  # as recorded
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        # Before the first decision: a new sink gets all decisions from now on.
        self._positions.begin(sink.name, self._catalog.next_seq(PREDICTIONS))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, batch: DecisionBatch) -> None:
        """Pass decisions that were just appended; they are delivered at once."""
        outbox = self._outbox
        if outbox is not None:
            outbox.offer(batch)
        self._wake.set()

    def stop(self) -> None:
        """End the delivery; a batch that is being sent is finished if that takes seconds, and one that fails is not."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            # A daemon: whatever a slow sink stores after this is sent again by the next process.
            self._thread.join(_STOP_S)

    def count_waiting(self) -> int | None:
        """Return the rows that the sink has not confirmed, as of less than a second ago; None: unknown."""
        if time.monotonic() - self._counted_at >= _COUNT_S:
            try:
                position = self._positions.read(self.sink.name)
                end = self._catalog.next_seq(PREDICTIONS)
                self.counts.waiting = None if position is None else max(0, end - position.next)
                self.counts.letters = self._positions.count_letters(self.sink.name)
            except StoreError:
                self.counts.waiting = self.counts.letters = None
            self._counted_at = time.monotonic()
        return self.counts.waiting

    def _run(self) -> None:
        pauses = Pauses()
        while not self._stop.is_set():
            try:
                self._hold_lease(pauses)
            except ConflictError:
                self._pause(_LEASE_S)  # another process delivers, and continues from the confirmed position
            except SkewlessError as error:
                self.counts.retries += 1
                self._note(str(error))
                self._pause(pauses.next())
            except Exception as error:  # noqa: BLE001 - a fault of one sink must not end its thread for ever
                _log.exception("delivery_failed", sink=self.sink.name)
                self._note(f"{type(error).__name__}; see the log of this process")
                self._pause(pauses.next())

    def _hold_lease(self, pauses: Pauses) -> None:
        requested_at = time.monotonic()
        lease = self._leases.acquire(f"sink {self.sink.name}", holder=new_holder())
        if lease is None:
            self._pause(_LEASE_S)
            return
        with self._leases.renew_until_end(lease, requested_at) as renewal:
            self._trouble = self._positions.read_trouble(self.sink.name)  # of an earlier process, too
            outbox = Outbox(
                self._context.state,
                self.sink.name,
                streams=self.streams,
                check=lambda: self._leases.check(lease),
            )
            adapter = self._open(self._context, self.sink, outbox)
            self._outbox, self.counts.is_owner = outbox, True
            self._done, self._unconfirmed, self._refusals = outbox.next, 0, []
            try:
                self._deliver(outbox, adapter, renewal, pauses)
                self._confirm(outbox)
            finally:
                self._outbox, self.counts.is_owner = None, False
                self._save_by_day(now=True)
                adapter.close()

    def _deliver(self, outbox: Outbox, adapter: DecisionSink, renewal: LeaseRenewal, pauses: Pauses) -> None:
        confirmed_at = active_at = time.monotonic()
        while not self._stop.is_set():
            self._wake.clear()
            batch = outbox.read(self.sink.batch) if self._is_due(outbox) else None
            now = time.monotonic()
            if batch is not None:
                if batch.decisions and not self._send(outbox, adapter, batch, renewal, pauses):
                    return
                self._done = batch.last + 1
                active_at = now if batch.decisions else active_at
            due_s = _CONFIRM_S if self._unconfirmed or self._refusals else _SKIP_S
            # Not after each batch: the worker, whose decisions come next, would wait for the database.
            if isinstance(self.sink, ParquetSink) or now - confirmed_at >= due_s:
                self._confirm(outbox)
                confirmed_at = now
            self._note(None)
            if batch is None:
                self._wake.wait(_POLL_S if now - active_at < _IDLE_AFTER_S else _IDLE_POLL_S)

    def _is_due(self, outbox: Outbox) -> bool:
        """Return whether decisions are delivered now; a file waits for more of them."""
        if not isinstance(self.sink, ParquetSink) or outbox.position.claimed is not None:
            return True
        waiting, now = outbox.count_waiting(), time.monotonic()
        if not waiting:
            self._waiting_since = now
        return waiting >= self.sink.batch or (waiting > 0 and now - self._waiting_since >= self.sink.every_s)

    def _send(
        self, outbox: Outbox, adapter: DecisionSink, batch: DecisionBatch, renewal: LeaseRenewal, pauses: Pauses
    ) -> bool:
        """Deliver a batch, however often it fails, while this process has the lease; return False if it must stop."""
        if isinstance(self.sink, ParquetSink):
            outbox.claim(batch)
        while True:
            if not renewal.is_held:
                raise ConflictError(f"sink {self.sink.name!r}", "may have another process", fix="do nothing")
            try:
                refusals = adapter.send(batch)
                break
            except StoreError as error:
                self.counts.retries += 1
                self._note(str(error))
                self._confirm(outbox)  # the earlier deliveries
                self._pause(max(pauses.next(), adapter.retry_after_s or 0.0))
            if self._stop.is_set():
                return False
        pauses.reset()
        self._refusals += refusals
        self._unconfirmed += len(batch.decisions) - len(refusals)
        return True

    def _confirm(self, outbox: Outbox) -> None:
        if self._done <= outbox.position.next:
            return
        outbox.confirm(self._done - 1, self._unconfirmed, self._refusals)
        self.counts.delivered += self._unconfirmed
        self.counts.refused += len(self._refusals)
        self._by_day.add(RowCounts(accepted=self._unconfirmed, refused=Counter(each.reason for each in self._refusals)))
        self._save_by_day()
        for refusal in self._refusals[:10]:
            _log.warning("decision_refused", sink=self.sink.name, decision=refusal.id, reason=refusal.reason)
        self._unconfirmed, self._refusals = 0, []

    def _save_by_day(self, *, now: bool = False) -> None:
        """Add the counts to those of the day, every few seconds."""
        if now or time.monotonic() - self._saved_at >= _SAVE_S:
            counts, self._by_day, self._saved_at = self._by_day, RowCounts(), time.monotonic()
            DailyCounts(self._context.state.database).add(
                f"{SINK_COUNTS}/{self.sink.name}", self._context.clock.now_us(), counts
            )

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _note(self, trouble: str | None) -> None:
        trouble = None if trouble is None else redact(trouble)
        if trouble is not None and trouble != self.counts.trouble:
            _log.warning("decisions_not_delivered", sink=self.sink.name, error=trouble)
        elif trouble is None and self.counts.trouble is not None:
            _log.info("delivery_recovered", sink=self.sink.name)
        self.counts.trouble = trouble
        if trouble is not None or self._trouble is not None:
            self._record_trouble(trouble)

    def _record_trouble(self, error: str | None) -> None:
        """Record the error of a failed attempt for `skewless status`, or that there is none any more."""
        known = self._trouble
        recorded: SinkTrouble | None = None
        if error is not None:
            since_us = self._context.clock.now_us() if known is None else known.since_us
            recorded = SinkTrouble(error=error, since_us=since_us, retries=1 + (known.retries if known else 0))
        with suppress(StoreError):  # a database that is down is the trouble itself, perhaps
            self._positions.write_trouble(self.sink.name, recorded)
            self._trouble = recorded


class Pauses:
    """The seconds between tries: they double, and are random so that processes do not try at the same time."""

    def __init__(self) -> None:
        self._longest = _FIRST_RETRY_S

    def next(self) -> float:
        """Return the next pause."""
        pause = random.uniform(self._longest / 2, self._longest)  # noqa: S311 - not for secrets
        self._longest = min(2 * self._longest, _LAST_RETRY_S)
        return pause

    def reset(self) -> None:
        """Begin again with a short one."""
        self._longest = _FIRST_RETRY_S
