"""Reads events from Redis or Valkey Streams, shared among workers by leases in the project's database.

It does not use consumer groups of Redis: the accepted log records the read positions (SEMANTICS 4.2).
"""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import Messages, Partition, RebalanceListener, StreamError
from skewless.infra.ingest.streams.redis_link import FIELD, EventKeys, RedisLink, format_entry_id, parse_position
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.lease_group import LeaseGroup
from skewless.infra.platform.telemetry.logger import EventLogger

_HEARTBEATS_PER_LEASE = 10
_PAUSE_S = 0.02
_MAX_COUNTED = 10_000
# Creates a missing stream, so that a stream that is missing later must have been deleted.
_OPEN = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XADD', KEYS[1], '0-1', 'e', '')
  redis.call('XDEL', KEYS[1], '0-1')
  redis.call('SET', KEYS[2], ARGV[1])
end
redis.call('SET', KEYS[2], ARGV[1], 'NX')
redis.call('HSETNX', KEYS[3], ARGV[2], 0)
return redis.call('GET', KEYS[2])
"""
# Records a position, if the stream has the entry before it: an older copy of the stream may not have it.
_COMMIT = """
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end
return redis.call('HVALS', KEYS[2])
"""
# From now on, new entries have ids after the given one. Returns the entries between two ids.
_RAISE_ID = """
redis.pcall('XSETID', KEYS[1], ARGV[2])
return redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2])
"""
# Gives entries new ids, in their order, and records a position. Of an entry that was moved already nothing is left.
_MOVE = """
for i = 3, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if entry then
    redis.call('XDEL', KEYS[1], ARGV[i])
    redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
  end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
"""
_EPOCH = re.compile(rb"[0-9a-f]{16}")  # the name of a log folder
_COUNT = "return #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])"
_log = EventLogger()


@dataclass
class _RedisProgress:
    """The progress in an owned partition.

    Args:
        partition: name and epoch.
        next_position: the next position to read.
        read_positions: positions below which messages may be trimmed; None: no trimming.
        has_last: whether the stream must have the entry before that position: it was there, and is never trimmed.
        index: number of entries ever added before the next position; too low if it had to be estimated.
    """

    partition: Partition
    next_position: int
    read_positions: ReadPositions | None
    has_last: bool = False
    index: int = 0

    @property
    def last(self) -> str:
        """Id of the entry before the next position, if there is one."""
        return format_entry_id(max(0, self.next_position - 1))


class RedisStream:
    """Implements ``EventStream``. The position of an entry id is ``(milliseconds << 22) + sequence number``.

    Args:
        url: as in the setting ``redis_url``.
        database: of the project, has the leases.
        project: name of the project.
        source: name of the event source.
        n_partitions: the same number as its senders use.
        owner: notified of assigned and revoked partitions.
        group: name of the workers' group.
        lease_s: seconds without a heartbeat after which a worker loses its partitions.
        keep: minimum number of messages to retain after all groups have committed them; None: all.
        timeout_s: the timeout of a reply in seconds; more than a tenth of ``lease_s``.

    Raises:
        StoreError: ``url`` is not the URL of a Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        database: Database,
        project: str,
        source: str,
        n_partitions: int,
        owner: RebalanceListener,
        group: str = "skewless",
        lease_s: float = 10.0,
        keep: int | None = None,
        timeout_s: float = 2.0,
    ) -> None:
        self._keys = EventKeys(project=project, source=source, group=group)
        self._n = n_partitions
        self._owner = owner
        self._keep = keep
        self._leases = LeaseGroup(database, f"stream {source} {group}", n_partitions, lease_s)
        self._link = RedisLink(url, timeout_s)
        self._heartbeat_s = min(1.0, lease_s / _HEARTBEATS_PER_LEASE)
        self._next_heartbeat = 0.0
        self._lease_end = 0.0
        self._lease_trouble: str | None = None
        self._owned: dict[int, _RedisProgress] = {}
        self._drained_partitions: list[Partition] = []

    @property
    def trouble(self) -> str | None:
        """The current problem; see ``EventStream``."""
        return self._link.trouble or self._lease_trouble

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return messages; see ``EventStream``."""
        deadline = time.monotonic() + timeout_s
        while True:
            messages: list[Messages] = []
            self._drained_partitions = []
            with self._link.tolerate_outage():
                client = self._link.client()
                self._send_heartbeat(client)
                messages = self._read_messages(client, limit)
                if not messages:
                    self._wait(client, min(deadline, self._next_heartbeat) - time.monotonic())
            left = deadline - time.monotonic()
            if messages or left <= 0:
                return messages
            if self.trouble:
                time.sleep(min(left, _PAUSE_S))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions and trim the stream; see ``EventStream``."""
        by_partition = {progress.partition: index for index, progress in self._owned.items()}
        owned_positions = {
            by_partition[partition]: at for partition, at in positions.items() if partition in by_partition
        }
        if not owned_positions:
            return
        with self._link.tolerate_outage():
            pipe = self._link.client().pipeline(transaction=False)
            for index, at in owned_positions.items():
                keys = (self._keys.stream(index), self._keys.committed(index))
                pipe.execute_command("EVAL", _COMMIT, len(keys), *keys, format_entry_id(at - 1), self._keys.group, at)
            committed_positions = {
                index: min(map(int, values), default=0)
                for index, values in zip(owned_positions, pipe.execute(), strict=True)
            }
            self._trim(owned_positions, committed_positions)

    def lag(self) -> int | None:
        """Return the number of messages not returned yet; rather too high soon after an assignment."""
        with self._link.tolerate_outage():
            client = self._link.client()
            return sum(self._unread(client, index) for index in self._owned)
        return None

    def find_drained(self) -> Mapping[Partition, float]:
        """Return drained partitions; see ``EventStream``."""
        return dict.fromkeys(self._drained_partitions, 0.0)

    def partition_names(self) -> Collection[str] | None:
        """Return partition names; see ``EventStream``."""
        return [str(index) for index in range(self._n)]

    def close(self) -> None:
        """Release all partitions and leave the group; see ``EventStream``."""
        for index in list(self._owned):
            self._revoke(index)
        try:
            self._leases.leave()
        finally:
            self._link.close()

    @property
    def _is_leased(self) -> bool:
        """Whether no other member can have acquired the owned partitions yet."""
        return time.monotonic() < self._lease_end

    def _send_heartbeat(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        requested_at = time.monotonic()
        if requested_at < self._next_heartbeat:
            return
        # A member without a connection to Redis sends no heartbeat, so another member gets its partitions.
        client.exists(self._keys.stream(0))
        self._revoke_recreated(client, list(self._owned))
        self._next_heartbeat = requested_at + self._heartbeat_s
        try:
            share = self._leases.send_heartbeat(list(self._owned))
        except StoreError as error:
            if self._lease_trouble is None:
                _log.warning("heartbeat_failed", stream=self._keys.stream(0), error=str(error))
            self._lease_trouble = str(error)
            return
        self._lease_trouble = None
        self._lease_end = requested_at + self._leases.ttl_s
        for index in self._owned.keys() - set(share.kept):
            self._revoke_lost(index)
        for index in share.surplus:
            self._revoke(index)
            self._next_heartbeat = 0.0  # releases it, so that a new member can acquire it
        for index in share.acquired:
            self._assign(client, index)

    def _revoke_recreated(self, client: Any, indices: Sequence[int]) -> None:  # noqa: ANN401 - as above
        """Revoke partitions whose stream was deleted, or has another epoch now."""
        pipe = client.pipeline(transaction=False)
        self._ask_epochs(pipe, indices)
        self._check_epochs(client, indices, pipe.execute())

    def _ask_epochs(self, pipe: Any, indices: Iterable[int]) -> None:  # noqa: ANN401 - as above
        for index in indices:
            pipe.get(self._keys.epoch(index))
            pipe.exists(self._keys.stream(index))
            last = self._owned[index].last
            pipe.execute_command("EVAL", _COUNT, 1, self._keys.stream(index), last, last, 1)

    def _check_epochs(self, client: Any, indices: Sequence[int], replies: Sequence[Any]) -> bool:  # noqa: ANN401 - redis-py
        """Revoke partitions as above; return whether a stream has stepped back: then its messages are read again."""
        steps = 0
        for index, epoch, exists, n_last in zip(indices, replies[::3], replies[1::3], replies[2::3], strict=True):
            progress = self._owned[index]
            if (epoch, exists) != (progress.partition.epoch.encode(), 1):
                if self._is_leased and progress.next_position:
                    self._owner.on_stepped_back(progress.partition, progress.last, progress.next_position)
                self._revoke_lost(index)
            elif progress.has_last and not n_last and self._is_leased:  # else another owner may have trimmed it
                steps += self._step_back(client, index)
        return steps > 0

    def _step_back(self, client: Any, index: int) -> bool:  # noqa: ANN401 - as above
        """Continue in a stream without the last entry that was read; return whether it is an older copy.

        If its clock is behind, new entries have ids that were read before. Entries from the copy's committed position
        on that the log may not have are moved behind the last one.
        """
        progress, stream, committed = self._owned[index], self._keys.stream(index), self._keys.committed(index)
        if parse_position(client.xinfo_stream(stream)["max-deleted-entry-id"]) >= progress.next_position - 1:
            progress.has_last = False  # somebody has deleted it
            return False
        first = int(client.hget(committed, self._keys.group) or 0)
        known = self._owner.on_stepped_back(progress.partition, progress.last, first)
        entries = client.eval(_RAISE_ID, 1, stream, format_entry_id(first), progress.last)
        new = [entry[0] for entry in entries if parse_position(entry[0]) not in known]
        client.eval(_MOVE, 2, stream, committed, self._keys.group, progress.next_position, *new)
        progress.has_last = False
        self._count_unread(client, index)
        return True

    def _revoke_lost(self, index: int) -> None:
        _log.warning("partition_lost", stream=self._keys.stream(index))
        self._revoke(index)
        self._next_heartbeat = 0.0  # it may be available again, with another epoch

    def _assign(self, client: Any, index: int) -> None:  # noqa: ANN401 - as above
        stream = self._keys.stream(index)
        names = (stream, self._keys.epoch(index), self._keys.committed(index))
        epoch: bytes = client.eval(_OPEN, len(names), *names, secrets.token_hex(8), self._keys.group)
        if not _EPOCH.fullmatch(epoch):
            raise StreamError(
                f"key {self._keys.epoch(index)!r} in Redis",
                "is corrupt, so that it is unknown which messages of this stream the log has",
                value=epoch,
                fix="set it to the latest folder below `log/events/SOURCE`; without it all messages count as new",
            )
        partition = Partition(name=str(index), epoch=epoch.decode())
        committed = int(client.hget(names[2], self._keys.group))
        next_position = self._owner.on_assigned(partition) or 0
        read_positions = None if self._keep is None else ReadPositions(self._keep)
        # An uncommitted entry was not trimmed.
        has_last = committed < next_position
        self._owned[index] = _RedisProgress(partition, next_position, read_positions, has_last)
        if has_last:
            self._revoke_recreated(client, [index])
        if index in self._owned:
            self._count_unread(client, index)

    def _count_unread(self, client: Any, index: int) -> None:  # noqa: ANN401 - as above
        progress, stream = self._owned[index], self._keys.stream(index)
        info = client.xinfo_stream(stream)
        # Redis stores only a total of added entries, so unread ones are counted, up to a limit.
        counted = client.eval(_COUNT, 1, stream, format_entry_id(progress.next_position), "+", _MAX_COUNTED)
        unread = counted if counted < _MAX_COUNTED else info["length"]
        progress.index = info["entries-added"] - unread

    def _revoke(self, index: int) -> None:
        self._owner.on_revoked(self._owned[index].partition)
        del self._owned[index]

    def _read_messages(self, client: Any, limit: int) -> list[Messages]:  # noqa: ANN401 - as above
        if not self._owned or not self._is_leased:
            return []
        # Rounded up, so that each partition gets at least one message.
        count = -(-limit // len(self._owned))
        pipe = client.pipeline(transaction=False)
        for index, progress in self._owned.items():
            start = format_entry_id(progress.next_position)
            pipe.execute_command("XRANGE", self._keys.stream(index), start, "+", "COUNT", count)
        # After the reads, in one round trip with them: the messages belong to the epochs that are confirmed here.
        indices = list(self._owned)
        self._ask_epochs(pipe, indices)
        replies = pipe.execute()
        by_index = {index: entries for index, entries in zip(indices, replies[: len(indices)], strict=True) if entries}
        if self._check_epochs(client, indices, replies[len(indices) :]) or not self._is_leased:
            return []  # or this process was paused meanwhile, or the database is unavailable
        full_indices = {index for index, entries in by_index.items() if len(entries) == count}
        self._drained_partitions = [
            progress.partition for index, progress in self._owned.items() if index not in full_indices
        ]
        return [
            _convert_entries(self._owned[index], entries) for index, entries in by_index.items() if index in self._owned
        ]

    def _wait(self, client: Any, seconds: float) -> None:  # noqa: ANN401 - as above
        if seconds <= 0:
            return
        # In a cluster, one command cannot wait for streams on several nodes.
        if not self._owned or not self._is_leased or not self._link.is_single_server:
            time.sleep(min(seconds, _PAUSE_S))
            return
        keys = [self._keys.stream(index) for index in self._owned]
        # XREAD returns the entries after an id, without the entry itself.
        after = [format_entry_id(max(0, progress.next_position - 1)) for progress in self._owned.values()]
        client.execute_command("XREAD", "COUNT", 1, "BLOCK", max(1, int(seconds * 1_000)), "STREAMS", *keys, *after)

    def _trim(self, owned_positions: Mapping[int, int], committed_positions: Mapping[int, int]) -> None:
        pipe = self._link.client().pipeline(transaction=False)
        for index, at in owned_positions.items():
            read_positions = self._owned[index].read_positions
            floor = read_positions.floor(at) if read_positions else None
            if floor is not None:
                # Never beyond the slowest group. The last entry stays: without it, the stream has stepped back.
                floor = max(1, min(floor, committed_positions[index])) - 1
                pipe.execute_command("XTRIM", self._keys.stream(index), "MINID", "~", format_entry_id(floor))
        pipe.execute()

    def _unread(self, client: Any, index: int) -> int:  # noqa: ANN401 - as above
        progress, info = self._owned[index], client.xinfo_stream(self._keys.stream(index))
        if parse_position(info["last-generated-id"]) < progress.next_position:
            progress.index = info["entries-added"]
        return max(0, int(info["entries-added"]) - progress.index)


def _convert_entries(progress: _RedisProgress, entries: Sequence[Any]) -> Messages:
    """Convert entries, each an id and its fields, to messages; advances the progress."""
    positions = [parse_position(entry_id) for entry_id, _ in entries]
    payloads = [fields.get(FIELD) for _, fields in entries]
    progress.next_position, progress.has_last = positions[-1] + 1, True
    progress.index += len(positions)
    if progress.read_positions:
        progress.read_positions.read(len(positions), progress.next_position)
    return Messages(partition=progress.partition, positions=positions, payloads=payloads)


class ReadPositions:
    """Remembers how many messages were read up to recent positions.

    >>> read_positions = ReadPositions(2)
    >>> for n, next_position in ((2, 20), (1, 30), (3, 60)):
    ...     read_positions.read(n, next_position)
    >>> [read_positions.floor(committed) for committed in (20, 30, 60, 60)]
    [None, None, 30, 30]

    Args:
        keep: minimum number of committed messages to retain.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._n = 0
        self._pending: deque[tuple[int, int]] = deque()
        self._committed: deque[tuple[int, int]] = deque([(0, 0)])

    def read(self, n: int, next_position: int) -> None:
        """Record that ``n`` more messages were read, and the next position."""
        self._n += n
        self._pending.append((self._n, next_position))

    def floor(self, committed: int) -> int | None:
        """Return the position below which messages may be trimmed; None: none."""
        while self._pending and self._pending[0][1] <= committed:
            self._committed.append(self._pending.popleft())
        most = self._committed[-1][0] - self._keep
        while len(self._committed) > 1 and self._committed[1][0] <= most:
            self._committed.popleft()
        return self._committed[0][1] or None
