"""Reads events from a Kinesis stream, shared among workers by leases in the project's database.

The sequence numbers of AWS have 186 bits. So a position is our own count of a shard's records, and before messages are
returned, the position after them and the sequence number of the last one are stored together. The log always ends at
such a position: a restart reads exactly after that record, whatever was trimmed from the stream in the meantime.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import Messages, Partition, RebalanceListener, StreamError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.lease_group import LeaseGroup
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless_kinesis.client import EXPIRED, MISSING, KinesisClient, KinesisError, StreamFactsReply

_THREADS, _PER_CALL = 16, 10_000
_PAUSE_S, _RETRY_S = 0.02, 0.5
_SAVE_US = 600_000_000  # between two records of how far a quiet shard was read
_LATE_S = 1.0  # AWS may return a record later than it has acknowledged it, "typically less than a second"
_log = EventLogger()


@dataclass
class _ShardProgress:
    """The progress in an owned shard.

    Args:
        partition: name and epoch.
        shard: name of the shard.
        position: the next one.
        logged: the position up to which the log has all messages, as far as it is known here.
        last: sequence number of the last record that was read; empty: none.
        skip: records after it that the log has, too.
        known: a position that no record beyond a hole may get.
        read_us: time up to which all records that had arrived were read, microseconds.
        saved_us: the stored ``read_us``; 0: all records that had arrived were never read yet.
        iterator: where the next call reads; empty: after ``last``.
        due: monotonic time of the next call.
        drained_at: monotonic time of a call that left no record; None: records wait.
        has_ended: the shard was split or merged, and all of its records were returned.
        error: of the last call.
    """

    partition: Partition
    shard: str
    position: int
    last: str
    skip: int
    known: int
    read_us: int
    saved_us: int
    logged: int = 0
    iterator: str = ""
    due: float = 0.0
    drained_at: float | None = None
    has_ended: bool = False
    error: KinesisError | None = None

    def __post_init__(self) -> None:
        """Begin at the end of the log."""
        self.logged = self.position

    @property
    def is_finished(self) -> bool:
        """Whether the log has all messages of a shard that gets no more."""
        return self.has_ended and self.logged == self.position


class _Reply(NamedTuple):
    """New records of a shard, and where to go on; ``lost``: others before them were trimmed unread."""

    progress: _ShardProgress
    records: Sequence[Any]
    first: int
    n_skipped: int
    last: str
    iterator: str
    drained_at: float | None
    read_us: int
    lost: bool

    @property
    def end(self) -> int:
        """The position after the records."""
        return self.first + len(self.records)


class KinesisStream:
    """Implements ``EventStream``. A partition is a shard; a shard is read when the log has all of its parents.

    Args:
        client: of the stream; closed with this object.
        database: of the project, has the leases and positions.
        source: name of the event source.
        owner: notified of assigned and revoked partitions.
        group: name of the workers' group.
        lease_s: seconds without a heartbeat after which a worker loses its partitions.
        interval_s: between two reads of a shard; AWS answers five a second, for all readers together.
        facts_s: between two descriptions of the stream. To delete and create a stream takes AWS longer.
    """

    def __init__(
        self,
        client: KinesisClient,
        *,
        database: Database,
        source: str,
        owner: RebalanceListener,
        group: str = "skewless",
        lease_s: float = 10.0,
        interval_s: float = 0.25,
        facts_s: float = 5.0,
    ) -> None:
        self._client, self._database, self._owner = client, database, owner
        self._name = f"{source} {group}"
        self._leases = LeaseGroup(database, f"stream {self._name}", 0, lease_s)
        self._heartbeat_s = min(1.0, lease_s / 10)
        self._interval_s, self._facts_s = interval_s, facts_s
        self._next_heartbeat = self._lease_end = self._next_facts = self._polled_at = 0.0
        self._facts = StreamFactsReply("", 0.0, {})  # without an epoch: never described
        self._stored: Mapping[str, Any] = {}  # of all shards, at the last heartbeat
        self._owned: dict[int, _ShardProgress] = {}
        self._trouble: str | None = None
        self._loss: str | None = None  # lost positions; visible until the next messages are returned
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="kinesis")

    @property
    def trouble(self) -> str | None:
        """The current problem; see ``EventStream``."""
        errors = (str(progress.error) for progress in self._owned.values() if progress.error is not None)
        return self._loss or self._trouble or next(errors, None)

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return messages; see ``EventStream``."""
        self._polled_at = time.monotonic()
        deadline, self._loss = self._polled_at + timeout_s, None
        while True:
            messages: list[Messages] = []
            try:
                self._send_heartbeat()
                messages = self._read_messages(limit)
            except KinesisError as error:
                if error.is_final and not self._facts.epoch:
                    raise StreamError(error.thing, error.problem, value=error.value, fix=error.fix) from error
                self._note_trouble(error)
                self._next_heartbeat = time.monotonic() + _RETRY_S
            left = deadline - time.monotonic()
            if messages or left <= 0:
                return messages
            time.sleep(min(left, _PAUSE_S))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Store positions, and forget the sequence numbers before them; see ``EventStream``."""
        owned = [progress for progress in self._owned.values() if progress.partition in positions]
        try:
            with self._database.transaction() if owned else nullcontext():
                for progress in owned:
                    progress.logged = at = positions[progress.partition]
                    with self._documents.edit(progress.partition.name, _new_record()) as record:
                        first = max((int(each) for each in record["after"] if int(each) <= at), default=at)
                        record["after"] = {each: last for each, last in record["after"].items() if int(each) >= first}
                        record["committed"] = at
        except StoreError as error:  # the log knows the position, too
            self._note_trouble(error)
        if any(progress.is_finished for progress in owned):
            self._next_heartbeat = 0.0

    def lag(self) -> int | None:
        """Return 0 if nothing waits, else None: AWS counts no records, it only tells their age."""
        is_read = all(each.drained_at is not None and not each.has_ended for each in self._owned.values())
        return 0 if is_read else None

    def find_drained(self) -> Mapping[Partition, float]:
        """Return drained partitions; see ``EventStream``. Not those that ended: their children may have records."""
        if self.trouble:
            return {}
        return {
            progress.partition: max(0.0, self._polled_at - progress.drained_at) + _LATE_S
            for progress in self._owned.values()
            if progress.drained_at is not None and not progress.has_ended
        }

    def partition_names(self) -> Collection[str] | None:
        """Return the names of shards that may still get events, and of those whose children were not read yet."""
        if not self._facts.epoch:
            return None
        unread = {
            parent
            for number, shard in self._facts.shards.items()
            if not self._has(number, "is_read") and not self._has(number, "is_done")
            for parent in shard.parents
        }
        return [str(n) for n in self._facts.shards if not self._has(n, "is_done") or n in unread]

    def close(self) -> None:
        """Release all partitions and leave the group; see ``EventStream``."""
        self._revoke(list(self._owned))
        self._pool.shutdown()
        try:
            self._leases.leave()
        finally:
            self._client.close()

    @property
    def _is_leased(self) -> bool:
        """Whether no other member can have acquired the owned partitions yet."""
        return time.monotonic() < self._lease_end

    @property
    def _documents(self) -> Documents:
        """A record for each shard of this life: its positions, and how far it was read."""
        return Documents(self._database, f"kinesis {self._name} {self._facts.epoch}")

    def _has(self, number: int, name: str) -> bool:
        return bool(self._stored.get(str(number), {}).get(name))

    def _send_heartbeat(self) -> None:
        requested_at = time.monotonic()
        if requested_at < self._next_heartbeat:
            return
        # A member without a connection to AWS sends no heartbeat, so another member gets its partitions.
        facts = self._describe()
        self._next_heartbeat = requested_at + self._heartbeat_s
        try:
            self._save_progress()
            self._stored = self._documents.list_all()
            self._forget_removed(facts)
            done = {number for number in facts.shards if self._has(number, "is_done")}
            self._leases.numbers = sorted(
                number
                for number, shard in facts.shards.items()
                if number not in done and facts.shards.keys() & {*shard.parents} <= done
            )
            share = self._leases.send_heartbeat(list(self._owned))
        except StoreError as error:
            self._note_trouble(error)
            return
        self._trouble, self._lease_end = None, requested_at + self._leases.ttl_s
        for number in self._owned.keys() - set(share.kept):
            _log.warning("partition_lost", stream=self._owned[number].shard)
            self._revoke([number])
        if share.surplus:
            self._revoke(share.surplus)
            self._next_heartbeat = 0.0  # releases them, so that a new member can acquire them
        for number in share.acquired:
            self._assign(facts, number)

    def _describe(self) -> StreamFactsReply:
        """Return the facts of the stream, from a few seconds ago; revoke the partitions of a recreated one."""
        if time.monotonic() >= self._next_facts:
            facts = self._client.describe()
            if self._facts.epoch not in {"", facts.epoch}:
                _log.warning("stream_recreated", topic=self._name, epoch=facts.epoch)
                self._revoke(list(self._owned))
                self._stored, self._next_heartbeat = {}, 0.0
            self._facts, self._next_facts = facts, time.monotonic() + self._facts_s
        return self._facts

    def _save_progress(self) -> None:
        """Store that shards are finished, and how far quiet shards were read."""
        for number, progress in list(self._owned.items()):
            is_read = progress.drained_at is not None and not progress.saved_us
            if not (progress.is_finished or is_read or 0 < progress.saved_us < progress.read_us - _SAVE_US):
                continue
            with self._documents.edit(progress.partition.name, _new_record()) as record:
                record["read_us"] = progress.saved_us = progress.read_us
                record["is_read"] = True
                record["is_done"] = progress.is_finished
            if progress.is_finished:
                self._revoke([number])
                self._next_facts = self._next_heartbeat = 0.0  # its children may be new

    def _forget_removed(self, facts: StreamFactsReply) -> None:
        """Report shards that AWS has removed before they were read to their end."""
        for name, record in self._stored.items():
            # A later number may be that of a shard that was not listed yet.
            if int(name) in facts.shards or int(name) >= max(facts.shards, default=0):
                continue
            if not record["is_done"]:
                self._report_loss(name, record["committed"], "was removed by AWS before it was read to its end")
            self._revoke({int(name)} & self._owned.keys())
            self._documents.delete(name)

    def _assign(self, facts: StreamFactsReply, number: int) -> None:
        partition = Partition(name=str(number), epoch=facts.epoch)
        position = self._owner.on_assigned(partition) or 0
        try:
            # After the end of the log: what the log has, was stored here before.
            with self._documents.edit(partition.name, _new_record()) as record:
                record["read_us"] = record["read_us"] or time.time_ns() // 1_000
                if not record["after"] and not position:
                    record["after"]["0"] = ""
        except StoreError:
            self._owner.on_revoked(partition)
            raise
        after = {int(at): last for at, last in record["after"].items()}
        first = max((at for at in after if at <= position), default=-1)
        self._owned[number] = _ShardProgress(
            partition=partition,
            shard=facts.shards[number].name,
            position=position,
            last=after.get(first, ""),
            skip=position - first if first >= 0 else 0,
            known=max(after, default=0),
            read_us=record["read_us"],
            saved_us=record["read_us"] if record["is_read"] else 0,
        )
        if first < 0:
            self._report_loss(partition.name, position, "has no known sequence number, so it is read again")

    def _read_messages(self, limit: int) -> list[Messages]:
        if not self._owned or not self._is_leased:
            return []
        # Rounded up, so that each partition gets at least one message.
        count = min(_PER_CALL, -(-limit // len(self._owned)))
        now = time.monotonic()
        due = [each for each in self._owned.values() if each.due <= now and not each.has_ended]
        replies = [reply for reply in self._pool.map(lambda each: self._fetch(each, count), due) if reply is not None]
        if any(reply.records for reply in replies):
            # After the reads: the messages belong to the life that is confirmed here.
            self._describe()
        if not self._owned or not self._is_leased:
            return []  # recreated, or this process was paused meanwhile
        try:
            self._save_positions([reply for reply in replies if reply.records])
        except StoreError as error:
            self._note_trouble(error)  # the next poll reads the same messages
            return []
        return [messages for reply in replies if (messages := self._take(reply)) is not None]

    def _fetch(self, progress: _ShardProgress, count: int) -> _Reply | None:
        """Read a shard; None: it failed. Changes nothing but the time of the next call, the iterator and the error."""
        requested_at, now_us = time.monotonic(), time.time_ns() // 1_000
        progress.due = requested_at + self._interval_s
        try:
            lost = self._has_lost(progress, now_us)
            progress.iterator = progress.iterator or self._client.iterator(progress.shard, progress.last)
            reply = self._client.call("get_records", ShardIterator=progress.iterator, Limit=count)
        except KinesisError as error:
            progress.iterator, progress.drained_at = "", None
            if error.value != EXPIRED:
                progress.error, progress.due = error, requested_at + _RETRY_S
            self._next_facts = 0.0 if error.value == MISSING else self._next_facts  # it may have been recreated
            return None
        progress.error, records = None, reply["Records"]
        n_skipped = 0 if lost else min(progress.skip, len(records))
        behind_us = int(reply.get("MillisBehindLatest", 0)) * 1_000
        # Behind a hole, no position is that of a record that another worker may have read.
        first = max(progress.position, progress.known) + 1 if lost else progress.position
        return _Reply(
            progress=progress,
            first=first,
            records=records[n_skipped:],
            n_skipped=n_skipped,
            last=records[-1]["SequenceNumber"] if records else progress.last,
            iterator=reply.get("NextShardIterator") or "",
            drained_at=None if behind_us or len(records) >= count else requested_at,
            read_us=now_us - behind_us,
            lost=lost,
        )

    def _has_lost(self, progress: _ShardProgress, now_us: int) -> bool:
        """Return whether records may have been trimmed unread: the last one that was read is, and so long ago."""
        if not progress.last or now_us - progress.read_us <= self._facts.retention_s * 1e6:
            return False
        oldest = self._client.call("get_records", ShardIterator=self._client.iterator(progress.shard, ""), Limit=1)
        return not oldest["Records"] or int(oldest["Records"][0]["SequenceNumber"]) > int(progress.last)

    def _save_positions(self, replies: Sequence[_Reply]) -> None:
        if not replies:
            return
        with self._database.transaction():
            for reply in replies:
                with self._documents.edit(reply.progress.partition.name, _new_record()) as record:
                    record["after"][str(reply.end)] = reply.last
                    record["read_us"] = reply.read_us

    def _take(self, reply: _Reply) -> Messages | None:
        """Advance the progress; return the messages, None if there are none."""
        progress = reply.progress
        if reply.lost:
            self._report_loss(progress.partition.name, progress.position, "was not read for too long")
            progress.logged += (reply.first - progress.position) if progress.logged == progress.position else 0
        progress.skip = 0 if reply.lost else progress.skip - reply.n_skipped
        progress.position = reply.end
        progress.last, progress.iterator, progress.read_us = reply.last, reply.iterator, reply.read_us
        progress.saved_us = reply.read_us if reply.records and progress.saved_us else progress.saved_us
        progress.drained_at = reply.drained_at
        if not reply.iterator:
            progress.has_ended, self._next_heartbeat = True, 0.0
        if not reply.records:
            return None
        return Messages(
            partition=progress.partition,
            positions=range(reply.first, reply.end),
            payloads=[record["Data"] for record in reply.records],
        )

    def _report_loss(self, name: str, position: int, problem: str) -> None:
        self._loss = f"Kinesis stream of {self._name!r}: shard {name} {problem}: events may be lost"
        _log.error("stream_positions_lost", topic=self._name, partition=name, position=position, problem=problem)

    def _note_trouble(self, error: StoreError) -> None:
        if self._trouble is None:
            _log.warning("stream_unavailable", topic=self._name, error=str(error))
        self._trouble = str(error)

    def _revoke(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            self._owner.on_revoked(self._owned.pop(number).partition)


def _new_record() -> dict[str, Any]:
    """Return the record of a shard that nobody has read.

    ``after``: position -> sequence number of the record before it; empty: the oldest record has the position.
    """
    return {"after": {}, "committed": 0, "read_us": 0, "is_read": False, "is_done": False}
