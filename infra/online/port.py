"""The port to the online store; every adapter passes the suite of ``tests/contract``.

A store holds bytes under keys, and markers under names, in one space: ``delete`` takes both by their prefix. It is one
for all processes of a project. Whoever has it open may use it from several threads, and after a fork.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray

Binaries: TypeAlias = Sequence[bytes] | pa.LargeBinaryArray  # an Arrow array must not hold nulls
Letters: TypeAlias = npt.NDArray[np.uint8]

# What ``append`` did with a state: appended; appended, and due to be rolled up; it had seen all of the update; it has
# seen a part of it and is as it was; it is damaged or another view's, and is as it was.
APPENDED, LONG, STOOD, PART, FOREIGN = b"ARSPF"
# The position of a marker where rows were applied once and are put again: reads as no marker, and moves like any.
LOST = -2


class Marker(NamedTuple):
    """How far a log partition has been applied (SEMANTICS 4.5, 8.4).

    Args:
        position: it and all before it have been applied.
        watermark_us: all that had arrived by then has been applied; 0: unknown, or when written, as before.
    """

    position: int
    watermark_us: int = 0


Marked: TypeAlias = tuple[list[bytes | None], list[Marker | None]]  # rows, and markers


class OnlineWriter(Protocol):
    """Writes packed rows; blocking, for jobs.

    Every method raises StoreError when the store refuses or is away; what was written before stays written, and
    writing it again changes nothing. Nothing that is written expires.
    """

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank (SEMANTICS 2.3).

        A row begins with its rank, ``RANK_BYTES`` that are compared as they are. Atomic per row; a key may come more
        than once. Returns how many rows were written.
        """
        ...

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has surely been applied, or None.

        Call it before rows are put: ``set_markers`` is refused by a store that is another, or was restarted, since.
        """
        ...

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record how far partitions were applied, none going back; call it after the rows up to there were put.

        Args:
            expected: where each marker must stand at least, None: anywhere; by default anywhere.

        Raises:
            StoreError: a marker is further back than expected, so that the store has lost writes; it may have
                recorded others.
        """
        ...

    def clock_offset_us(self) -> int:
        """Return the store's clock minus this machine's, in microseconds, measured now."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class OnlineStore(OnlineWriter, Protocol):
    """The whole writing side: rows, their repair, and the packed states of windowed views (``StateView``)."""

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the value of each key, in order; None: there is none."""
        ...

    def replace(
        self,
        keys: Binaries,
        old: Sequence[bytes | None],
        new: Binaries,
        heads: Sequence[bytes] | None = None,
    ) -> BoolArray:
        """Put values in the place of what is still as it was read, whatever its rank; return which. Atomic per key.

        Args:
            heads: the beginning of each old value that, with its size, tells it from any later one; None: all of it.
        """
        ...

    def append(self, keys: Binaries, updates: Binaries, marker: tuple[str, int | None]) -> Letters:
        """Append records to states, once for each position of a log partition (SEMANTICS 4.3); atomic per key.

        How states and updates lie is said in ``skewless/contract/windows/codec.py``. A state that has slots, but none
        of the update's partition, gets one more; a key without a state gets one with ``EVER`` as its moment. A state
        is due to be rolled up when it has grown longer than twice its size when it was, and the update's limit.

        Args:
            marker: name of a marker, and where it must stand at least (None: anywhere).

        Returns:
            A letter for each key: ``APPENDED``, ``LONG``, ``STOOD``, ``PART`` or ``FOREIGN``.

        Raises:
            StoreError: the marker is further back: the store has lost writes that it would never take again.
        """
        ...

    def peek_marks(self, names: Sequence[str]) -> list[Marker | None]:
        """Return how far partitions were surely applied; whoever sets one asks ``marker`` before."""
        ...

    def refresh_markers(self, marks: Mapping[str, Marker]) -> None:
        """Record new watermarks of markers that stand where they should.

        Raises:
            StoreError: one is further back, or there is none.
        """
        ...

    def publish(self, key: bytes, text: bytes) -> None:
        """Put a note where servers look, whatever stands there."""
        ...

    def delete(self, prefix: str) -> int:
        """Delete all keys and markers that begin with a prefix, some at a time; return how many there were.

        Running it again goes on.
        """
        ...


# Awaited for each connection that was made, before anything is read over it; what it raises is told to who asked.
OnConnect: TypeAlias = Callable[[], Awaitable[None]]


class OnlineReader(Protocol):
    """Reads packed rows; asynchronous, for the server.

    Raises StoreError when the store is away.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    def ask(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        """Have ``done`` called, once, with what ``get_marked`` returns or raises; no task, nothing to await.

        It is called from the loop's thread, perhaps before this returns, and must not raise.
        """
        ...

    def linger(self) -> None:
        """Stay awake for a moment, for a reply that comes sooner than one could be woken; holds up the event loop.

        For those who asked for little and have nothing else to do.
        """
        ...

    async def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order, from the same round trip.

        A marker is as the servers have it that were asked for the rows: after a loss it is an older one, or None.
        """
        ...

    async def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Leave a sign under each key that stands, for ``get``, for so long: what is read must not be removed."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


def settle(future: asyncio.Future[Any], outcome: Any) -> None:  # noqa: ANN401 - of any kind
    """Give a future its result, or the error that came in its place, unless nobody awaits it any more."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class BlockingOnlineReader(Protocol):
    """Reads as ``OnlineReader`` does, in a blocking way: for jobs, notebooks and Feast."""

    def on_connect(self, work: Callable[[], None]) -> None:
        """Have something done whenever a connection was made, before anything is read over it."""
        ...

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


class Lease(Protocol):
    """One candidate for the right to be the scheduler of a project; every method raises StoreError where it is away.

    One holder has it at a time, each with a fencing token above all before it. A lease alone does not keep a paused
    holder from writing after its time; the token does, because whoever stores something durable compares it
    (M. Kleppmann, "How to do distributed locking", 2016). It expires by the store's clock.

    Args:
        holder: a name that no other process has.
        ttl_s: seconds after which the lease of a holder that was not heard of is free.
    """

    holder: str
    ttl_s: float

    def take(self, floor: int) -> int | None:
        """Return the fencing token if the lease was free, or this holder's already; None if somebody else has it.

        Args:
            floor: the token will be above it, even of a store that has lost its data.
        """
        ...

    def renew(self) -> bool:
        """Say whether the lease is still this holder's; it is for another term then."""
        ...

    def release(self) -> None:
        """Let others take the lease at once, if it is this holder's."""
        ...

    def held_by(self) -> str | None:
        """Return who holds the lease now."""
        ...

    def close(self) -> None:
        """Give the connection back; the lease stays until it is released or expires."""
        ...


@dataclass(frozen=True, kw_only=True)
class OnlineAdapter:
    """What opens a store by its URL: an object that a package registers as an entry point ``skewless.online_stores``.

    Args:
        store: opens the writing side. It raises StoreError where the store is away, or may remove what it was given.
        reader: opens the reading side of a server, which asks nothing yet. It is given the seconds that a read may
            take, and what is awaited for each connection.
        blocking_reader: opens the reading side for jobs and notebooks.
        lease: makes a candidate of a project, a holder and a term in seconds, which asks nothing yet.
    """

    store: Callable[[str], OnlineStore]
    reader: Callable[[str, float, OnConnect | None], OnlineReader]
    blocking_reader: Callable[[str], BlockingOnlineReader]
    lease: Callable[[str, str, str, float], Lease]
