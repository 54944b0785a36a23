"""The interface of event streams; every adapter must pass ``tests/contract/test_streams.py``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, cast

from skewless.contract.errors import StoreError
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.host.plugins import require_plugin
from skewless.infra.platform.storage.database import Database


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One ordered part of a stream.

    Args:
        name: in the stream, for example ``"0"``.
        epoch: distinguishes a recreated stream, so that its positions are never confused with those of the old one
            (SEMANTICS 1.4). Safe in a file name.
    """

    name: str
    epoch: str

    def log_name(self, source: str) -> str:
        """Return the name of the log partition of a source's events (SEMANTICS 1.4).

        >>> Partition(name="0", epoch="ab12").log_name("arrivals")
        'events/arrivals/ab12/0'
        """
        return f"events/{source}/{self.epoch}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Consecutive messages of one partition.

    Args:
        partition: of the messages.
        positions: of each message; ascending, possibly with gaps. At least 0.
        payloads: the message bodies, as bytes; None: a message without a body.
    """

    partition: Partition
    positions: Sequence[int]
    payloads: Sequence[bytes | None]


class RebalanceListener(Protocol):
    """Receives assigned and revoked partitions; called only from ``poll`` and ``close`` of the stream."""

    def on_assigned(self, partition: Partition) -> int | None:
        """Accept a partition; return the position to read from (inclusive), or None for the oldest."""
        ...

    def on_revoked(self, partition: Partition) -> None:
        """Give up a partition: another worker may own it already, so nothing more may be written for it."""
        ...

    def on_stepped_back(self, partition: Partition, last: str, first: int) -> Collection[int]:
        """Report that the broker is an older copy, or empty: messages after the last one that was read may be lost.

        Args:
            partition: an owned one.
            last: id of that message; the owner has everything up to it.
            first: a position; the result is the positions from there on that the owner must not get again.
        """
        ...


class StreamError(StoreError):
    """The broker refuses for good: only a correction helps, so a worker ends instead of waiting."""


class EventStream(Protocol):
    """A partitioned stream, shared among the workers of one group; used from one thread.

    Messages that were read and not committed are read again by the next owner: delivery is at least once. The listener
    decides where to continue, because the accepted log is more accurate than the stream (SEMANTICS 4.2). Every method
    raises StreamError for a permanent error, and what the listener raises. While a broker is unavailable, ``poll``
    returns nothing and ``trouble`` gives the reason.
    """

    def poll(self, limit: int, timeout_s: float) -> list[Messages]:
        """Return up to about ``limit`` messages in total, waiting at most ``timeout_s`` for the first.

        Returns at most one item per partition, with its messages in order. Partitions are assigned and revoked inside
        this call, before messages are returned. Messages of a revoked partition are never returned.
        """
        ...

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Record the next positions of owned partitions: a hint for other readers, and the base of the lag."""
        ...

    def lag(self) -> int | None:
        """Return the number of messages in owned partitions that ``poll`` has not returned yet; None: unknown."""
        ...

    def find_drained(self) -> Mapping[Partition, float]:
        """Return owned partitions that ``poll`` has read to the end, and the age of that knowledge in seconds.

        All messages that had arrived that long before the last ``poll`` have been returned. Empty while the broker is
        unavailable.
        """
        ...

    def partition_names(self) -> Collection[str] | None:
        """Return the names of all current partitions of the stream, owned or not; None: unknown."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why no messages arrive now; None if nothing is wrong."""
        ...

    def close(self) -> None:
        """Revoke owned partitions, so that other workers can own them at once."""
        ...


OpenStream: TypeAlias = Callable[[RebalanceListener], EventStream]


class EventSender(Protocol):
    """Sends events to a stream: for tests, for the HTTP route, and for users without their own producer."""

    def send(self, payloads: Sequence[bytes], keys: Sequence[str] | None = None) -> None:
        """Send messages, and return when the stream has stored them; messages with one key stay in order.

        Raises:
            StoreError: the stream rejected them or is unavailable; some may have been sent.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class StreamFacts(NamedTuple):
    """What a connector knows about a source's stream; ``doubt``: what is wrong with it, and ``fix``: what to do."""

    detail: str
    doubt: str = ""
    fix: str = ""


class StreamConnector(Protocol):
    """Opens the streams of sources of one kind, an entry point of ``skewless.streams`` under the name of the kind.

    Each method raises DefinitionError if a package is missing or a setting is invalid.
    """

    def open_stream(self, source: EventSource, settings: Settings, group: str, database: Database) -> OpenStream:
        """Return a function that joins the worker group ``group`` on a source's stream.

        Args:
            database: of the project, for the leases and positions of brokers that have none.
        """
        ...

    def open_sender(self, source: EventSource, settings: Settings) -> EventSender:
        """Return a sender to a source's stream."""
        ...

    def describe(self, source: EventSource, settings: Settings) -> StreamFacts:
        """Ask the broker for the facts of a source's stream; for ``skewless doctor --deep``.

        Raises:
            StoreError: no broker answers, or there is no such stream.
        """
        ...


def require_connector(kind: str) -> StreamConnector:
    """Return the connector of a kind of sources.

    Raises:
        DefinitionError: it is not installed.
    """
    return cast("StreamConnector", require_plugin("skewless.streams", kind))
