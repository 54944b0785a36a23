"""The port to event streams; every adapter passes ``tests/contract/test_streams.py``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One ordered part of a stream.

    Args:
        name: as the stream calls it, for example ``"0"``.
        epoch: which life of the stream it is: a topic that was deleted and made again has another, so that its
            positions are never taken for those of the old one (SEMANTICS 1.4). Safe in a file name.
    """

    name: str
    epoch: str


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Consecutive messages of one partition.

    Args:
        positions: of each message; they grow, and need not be dense. At least 0.
        payloads: what was sent, as bytes; None: a message without a body.
    """

    partition: Partition
    positions: Sequence[int]
    payloads: Sequence[bytes | None]


class RebalanceListener(Protocol):
    """Told of partitions as they come and go; called only from within ``poll`` and ``close`` of the stream."""

    def assigned(self, partition: Partition) -> int | None:
        """Take a partition over; return the position to read from (inclusive), or None for the oldest there is."""
        ...

    def revoked(self, partition: Partition) -> None:
        """Let a partition go: another worker may own it already, so nothing more may be written for it."""
        ...


class EventStream(Protocol):
    """A stream that is read in partitions, shared among the workers of one group; used from one thread.

    What was read and not committed is read again by the next owner: delivery is at least once, and where to go on
    is the owner's to say, since the accepted log knows better than the stream (SEMANTICS 4.2).
    Every method raises StoreError where the broker refuses for good; a broker that is away is waited for:
    ``poll`` returns nothing meanwhile, and ``trouble`` says why.
    """

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return up to about ``limit`` messages in all, waiting at most ``timeout_s`` for the first.

        At most one item for each partition, its messages in their order. Assignments and revocations take effect in
        here, before messages are returned; messages of a partition that was revoked are never returned.
        """
        ...

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Note the next position to read of some owned partitions: a hint, and what lag is measured by."""
        ...

    def lag(self) -> int | None:
        """Return how many messages of the owned partitions were not yet returned by ``poll``; None: unknown."""
        ...

    def drained(self) -> Mapping[Partition, float]:
        """Return the owned partitions of which ``poll`` left nothing behind, and how late that is known, seconds.

        All that had arrived so long before ``poll`` was last called has been returned; none where the broker is away.
        """
        ...

    def names(self) -> Collection[str] | None:
        """Return the names of all partitions that the stream has now, whoever owns them; None: unknown."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why nothing comes at the moment, None where nothing is wrong."""
        ...

    def close(self) -> None:
        """Revoke what is owned, and let others take it over at once."""
        ...


class EventSender(Protocol):
    """Puts events into a stream: for tests, for the HTTP route and for those who have no producer of their own."""

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages, and return when the stream has them; those of one key stay in order, in one partition.

        Raises:
            StoreError: the stream refused or is away; some may have been sent.
        """
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...
