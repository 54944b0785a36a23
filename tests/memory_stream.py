"""An event stream in memory: the reference that tests hold the others against."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition
from zlib import crc32

from skewless.contract.errors import StoreError
from skewless.infra.ingest.streams.port import Messages, Partition, RebalanceListener
from skewless.infra.platform.storage.lease_group import fair_share

_SLICE_S = 0.02
_AWAY = "the broker in memory is away"


@dataclass
class _ConsumerGroup:
    members: list[str] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)


class MemoryBroker:
    """Holds the messages of one stream; streams and senders of several threads may share it.

    Args:
        n_partitions: how many parts the stream has; at least 1.
    """

    def __init__(self, n_partitions: int = 4) -> None:
        self.changed = Condition()
        self.away = False
        self._life = 0
        self._logs: list[list[bytes | None]] = [[] for _ in range(n_partitions)]
        self._groups: dict[str, _ConsumerGroup] = {}

    def __len__(self) -> int:
        return len(self._logs)

    def append(self, index: int, payload: bytes | None) -> None:
        """Put one message at the end of a partition.

        Raises:
            StoreError: the broker is away.
        """
        if self.away:
            raise StoreError("stream in memory", "is away", fix="let it come back")
        with self.changed:
            self._logs[index].append(payload)
            self.changed.notify_all()

    def recreate(self) -> None:
        """Delete the stream with all its messages, and make it again."""
        with self.changed:
            self._life += 1
            self._logs = [[] for _ in self._logs]
            self.changed.notify_all()

    def partition(self, index: int) -> Partition:
        """Return a partition in its present life."""
        return Partition(name=str(index), epoch=f"m{self._life}")

    def log(self, index: int) -> Sequence[bytes | None]:
        """Return the messages of a partition; a message's position is its index."""
        return self._logs[index]

    def group(self, name: str) -> _ConsumerGroup:
        """Return what the broker knows of a group of workers; made when first asked for."""
        return self._groups.setdefault(name, _ConsumerGroup())

    def committed(self, group: str) -> Mapping[Partition, int]:
        """Return the positions that a group has committed."""
        return self.group(group).committed


class MemoryStream:
    """One member of a group; see ``EventStream``."""

    def __init__(
        self, broker: MemoryBroker, owner: RebalanceListener, *, group: str = "skewless", member: str = ""
    ) -> None:
        self._broker = broker
        self._owner = owner
        self._group = broker.group(group)
        self._me = member or f"member-{id(self)}"
        self._next: dict[Partition, int] = {}
        self._drained: Collection[Partition] = ()
        with broker.changed:
            self._group.members.append(self._me)

    @property
    def trouble(self) -> str | None:
        """See ``EventStream``."""
        return _AWAY if self._broker.away else None

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """See ``EventStream``."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._broker.changed:
                self._drained = ()
                found = [] if self._broker.away else self._attempt(limit)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._broker.changed.wait(min(left, _SLICE_S))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """See ``EventStream``."""
        with self._broker.changed:
            self._group.committed |= {partition: at for partition, at in positions.items() if partition in self._next}

    def lag(self) -> int | None:
        """See ``EventStream``."""
        with self._broker.changed:
            ends = {partition: len(self._broker.log(int(partition.name))) for partition in self._next}
        return sum(max(0, end - self._next[partition]) for partition, end in ends.items())

    def find_drained(self) -> Mapping[Partition, float]:
        """See ``EventStream``."""
        return dict.fromkeys(self._drained, 0.0)

    def partition_names(self) -> Collection[str] | None:
        """See ``EventStream``."""
        return [str(index) for index in range(len(self._broker))]

    def close(self) -> None:
        """See ``EventStream``."""
        with self._broker.changed:
            self._let_go(list(self._next))
            self._group.members.remove(self._me)
            self._broker.changed.notify_all()

    def _attempt(self, limit: int) -> list[Messages]:
        share = fair_share(len(self._broker), self._group.members, self._me)
        gone = [partition for partition in self._next if partition != self._broker.partition(int(partition.name))]
        self._let_go(gone)
        self._let_go(list(self._next)[share:])
        self._take(share - len(self._next))
        each = -(-limit // max(1, len(self._next)))
        found = [messages for partition in self._next if (messages := self._read(partition, each)).payloads]
        self._drained = self._next.keys() - {item.partition for item in found if len(item.payloads) == each}
        return found

    def _take(self, n: int) -> None:
        free = [index for index in range(len(self._broker)) if index not in self._group.owners]
        for index in free[: max(0, n)]:
            partition = self._broker.partition(index)
            self._next[partition] = self._owner.on_assigned(partition) or 0
            self._group.owners[index] = self._me

    def _let_go(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            self._owner.on_revoked(partition)
            del self._next[partition]
            del self._group.owners[int(partition.name)]

    def _read(self, partition: Partition, limit: int) -> Messages:
        start = self._next[partition]
        payloads = self._broker.log(int(partition.name))[start : start + limit]
        positions = range(start, start + len(payloads))
        self._next[partition] = positions.stop
        return Messages(partition=partition, positions=positions, payloads=payloads)


class MemorySender:
    """Puts messages into a broker in memory; see ``EventSender``."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._turn = 0

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """See ``EventSender``."""
        n = len(self._broker)
        for number, payload in enumerate(payloads):
            index = self._turn % n if keys is None else crc32(keys[number].encode()) % n
            self._turn += 1
            self._broker.append(index, payload)

    def close(self) -> None:
        """See ``EventSender``."""
